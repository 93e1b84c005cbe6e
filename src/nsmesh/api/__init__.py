"""Messages and services on the wire; written from the wire contract, generated code committed."""
