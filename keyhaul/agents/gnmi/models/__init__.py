"""The schemas that Keyhaul's targets serve, one module each; their YANG is in `proto` and with ETSI."""
