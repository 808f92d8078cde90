"""The RPCs of the server: admission, authentication, requests, responses, health."""
