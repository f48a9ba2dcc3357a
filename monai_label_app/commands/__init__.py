"""What ``endolens`` can be told: a module a subject, a function a command."""
