"""The JSON Schema of the config, installed as package data under ``bootstrapnas_ext.schemas``."""
