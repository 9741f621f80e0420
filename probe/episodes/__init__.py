"""Few-shot episodes: how they are drawn, and under which class shares they answer."""
