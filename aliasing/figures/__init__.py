"""The figures of each chapter, drawn from results tables; one module per study."""
