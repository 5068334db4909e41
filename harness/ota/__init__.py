"""Updates on their way to a board: what is sent (`release`, `bundle`, `variants`) and by whom (`server`).

Import from the modules: this file stays empty so that making a package does not load an HTTP server.
"""
