"""What a run will need, before any weight is loaded: bytes by part and layer, seconds, remedies.

Nothing here is a formula of a model. The very code of a run is run on tensors without memory
(`plan.phantom`), and what would be allocated and computed is counted (`plan.meter`).
"""
