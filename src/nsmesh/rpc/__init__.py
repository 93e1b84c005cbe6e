"""gRPC behind a fence of three layers: wire, engine, rpc."""
