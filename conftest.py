"""Everything is in the plugin `harness.plugin`; here is only what pytest wants to have at the top."""

pytest_plugins = ["pytester"]
