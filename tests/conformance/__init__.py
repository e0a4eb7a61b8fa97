"""The built-in platforms and strategies keep to what is asked of a plug-in's author."""
