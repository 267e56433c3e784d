"""The same whole session, by clients of both generations of the SDK, over both transports."""
