"""The typed messages of every interface between services, one module an interface.

The OpenAPI documents in `proto/` are generated from these types.
"""
