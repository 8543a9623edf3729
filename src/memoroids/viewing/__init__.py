"""What a person sees of a trained agent."""
