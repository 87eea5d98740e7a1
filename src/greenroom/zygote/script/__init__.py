"""Process that runs a script as a program, once in the life of the worker. The script hands over an app to serve."""
