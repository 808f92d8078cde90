"""The RPCs: what arrives over gRPC, who may call, and what is answered."""
