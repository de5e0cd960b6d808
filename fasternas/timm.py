"""`import fasternas.timm` makes searched networks known to timm, as its model "fasternas".

    timm.create_model("fasternas", config="x.yaml", num_classes=10, features_only=True)

`import fasternas` does the same if timm has been imported before, and imports nothing otherwise:
timm has no entry points that it would look up by itself.
"""

from search_spaces.timm_models import register

register()
