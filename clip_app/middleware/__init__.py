"""What stands before every route, a pure ASGI class a file."""
