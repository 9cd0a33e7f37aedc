"""Stands in for the older pack: it registers two of the old ids, in the old way."""


class Apply:
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply"
    CATEGORY = "older pack"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "config": (["SDXL, Attention Injection"],), "weight": ("FLOAT", {"default": 1.0})}}

    def apply(self, model, config, weight):
        return (model,)


class Decode(Apply):
    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "images": ("IMAGE",)}}


NODE_CLASS_MAPPINGS = {"LayeredDiffusionApply": Apply, "LayeredDiffusionDecode": Decode}
