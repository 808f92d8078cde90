"""The verifier: a second, larger network that checks the peaks of the first one."""
