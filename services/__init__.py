"""The key management roles: each folder is one service; none imports another."""
