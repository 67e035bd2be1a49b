"""Optimisers and learning-rate schedules as the references have them: adam, schedules."""
