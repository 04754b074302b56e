"""Modules that run in another interpreter: the engine's, the benchmark's, a bare one.

They import nothing of moeplan, so that this folder alone can stand on that interpreter's path.
"""
