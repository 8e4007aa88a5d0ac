"""The worker of a runner: fetches the calls of a model, runs them and hands the outputs back."""
