"""The access KMS: the border between users and the carrier, where KSA keys are made, released and accounted.

Cores without sockets or clocks: `combination`, `cn_batch`, `cn_demand`, `cn_path`, `cn_pool`, `cn_store`, `ephemeral`,
`permission`, `credits`.
Drivers: `carrier`, `grants`, `asking`, `receiving`, `making`, `local`, `holding`, `releasing`, `delivery`, `errands`,
`voiding`, `recalling`, `querying`, `reconciling`, `accounting`, `changes`, `describing`. Durable: `tables`, `batches`.
`service` puts the parts together, `role` gives them sockets. What a link or a message is stands in `keyhaul`.
"""
