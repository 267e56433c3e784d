"""The faces, driven from outside: a real client in memory, over stdio, over HTTP."""
