"""What several test files need: models, deployments, the command line."""
