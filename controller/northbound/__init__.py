"""What the operator's tools ask of the controller: what it knows, what it promised, what would happen if.

`interface` is all that this folder knows of the rest of the controller.
"""
