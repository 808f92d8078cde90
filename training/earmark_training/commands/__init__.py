"""The subcommands of `earmark-train`: one module each, with its options and the function that runs it."""
