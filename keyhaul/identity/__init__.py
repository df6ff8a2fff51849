"""Who is who: names of services, their certificates and link keys, and the authorities that sign them."""
