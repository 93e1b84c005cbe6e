"""What a registry domain knows: stores, serving, expiry."""
