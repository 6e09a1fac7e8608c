"""The recipes: one for each row of the papers' tables, and a few for comparison."""

from dataclasses import dataclass, field

from tlee.paper.recipe_settings import BACKBONES, COMMON, DATA_SETS, METHODS, SEARCHED, Settings

METHOD_TITLES = {
    "tlee": "TLEE {} (IEEE IoT Journal 2024)",
    "frameexit": "FrameExit {} (CVPR 2021)",
    "layer": "Layer exits only {}, for comparison with TLEE",
    "full": "Full network {}, for comparison with TLEE",
    "random": "Random exits {}, an ablation of TLEE",
}


@dataclass(frozen=True)
class Published:
    """A published result to compare with."""

    score: float  #: in percent
    gmacs: float  #: per video; the papers call them GFLOPs
    source: str


@dataclass(frozen=True)
class Recipe:
    """One row of a paper's tables."""

    data_set: str
    backbone: str
    method: str = "tlee"
    overrides: Settings = field(default_factory=dict)  #: settings specific to this row
    published: tuple[Published, ...] = ()
    remark: str = ""

    @property
    def name(self) -> str:
        """Name of the parameter file, without its extension."""
        return f"{self.data_set}_{self.backbone}" + ("" if self.method == "tlee" else f"_{self.method}")

    @property
    def settings(self) -> Settings:
        """All values of the parameter file, by dotted key."""
        choices = {
            "dataset.name": self.data_set,
            "dataset.root": "../videos" if self.data_set == "folder" else f"../datasets/{self.data_set}",
            "model.method": self.method,
            "model.backbone": self.backbone,
        }
        layers = (DATA_SETS[self.data_set], METHODS[self.method], BACKBONES.get(self.backbone, {}), self.overrides)
        settings = COMMON | choices
        for layer in layers:
            settings |= layer
        return settings

    @property
    def title(self) -> str:
        """Method, data set and backbone in words."""
        videos = "your own videos" if self.data_set == "folder" else self.data_set
        return METHOD_TITLES[self.method].format(f"on {videos} with {self.backbone}")


TABLE_1, HVU_TABLE = "FrameExit paper table 1", "FrameExit paper HVU table"

SCRATCH = "the authors start from ImageNet; without such weights from scratch, unless `model.weights` names a file"
KINETICS = "the authors start from Kinetics: set `model.weights` to PyTorchVideo's file, null trains from scratch"
PIXELS = "300 pixels, since the paper counts 1.8 GMACs per frame"
UPSCALED = f"{PIXELS}; stored frames have 256 and are upscaled"

RECIPES = (
    Recipe("ucf101", "vgg16", overrides={"model.crm_scale": 1, "gates.beta": 0.001}),
    Recipe("ucf101", "bn_inception", remark=SCRATCH),
    Recipe("ucf101", "resnet18"),
    Recipe(
        "ucf101", "resnet50", overrides={"model.crm_scale": 3, "gates.beta": 0.005, "evaluate.layer_threshold": 0.8}
    ),
    Recipe("ucf101", "mobilenet_v2", overrides={"model.crm_scale": 1, "gates.beta": 0.001}),
    Recipe(
        "ucf101",
        "efficientnet_b3",
        overrides={"model.crm_scale": 1, "gates.beta": 0.01, "evaluate.layer_threshold": 0.8},
    ),
    Recipe("hmdb51", "vgg16", overrides={"model.crm_scale": 3, "gates.beta": 0.001}),
    Recipe("hmdb51", "bn_inception", remark=SCRATCH),
    Recipe("hmdb51", "resnet18"),
    Recipe("hmdb51", "resnet50", overrides={"model.crm_scale": 3, "gates.beta": 0.01}),
    Recipe("hmdb51", "mobilenet_v2", overrides={"model.crm_scale": 3, "gates.beta": 0.1}),
    Recipe(
        "hmdb51", "efficientnet_b3", overrides={"model.crm_scale": 3, "gates.beta": 0.2, "evaluate.layer_threshold": 1}
    ),
    Recipe("something_v2", "mobilenet_v2_tsm", remark="8 frames in temporal order, as the temporal shift requires"),
    Recipe("something_v2", "resnet50", overrides={"model.crm_scale": 2, "gates.beta": 0.000001}),
    Recipe("mini_kinetics", "mobilenet_v2"),
    Recipe("mini_kinetics", "resnet50"),
    Recipe("mini_kinetics", "efficientnet_b3"),
    Recipe("activitynet", "resnet50"),
    Recipe(
        "activitynet",
        "resnet50",
        "frameexit",
        overrides={"evaluate.first_threshold": 0.99},
        published=(Published(76.1, 26.1, TABLE_1), Published(76.12, 24.7, "FrameExit README")),
    ),
    Recipe(
        "activitynet",
        "efficientnet_b3",
        "frameexit",
        overrides={"model.input_size": 300},
        published=(Published(80.0, 11.4, TABLE_1),),
        remark=PIXELS,
    ),
    Recipe("activitynet", "x3d_s", "frameexit", published=(Published(86.0, 9.8, TABLE_1),), remark=KINETICS),
    Recipe(
        "mini_kinetics",
        "resnet50",
        "frameexit",
        overrides={"evaluate.first_threshold": 0.95},
        published=(Published(72.8, 19.7, TABLE_1), Published(73.31, 19.7, "FrameExit README")),
    ),
    Recipe(
        "mini_kinetics",
        "efficientnet_b3",
        "frameexit",
        overrides={"model.input_size": 300, "evaluate.first_threshold": 0.95},
        published=(Published(75.3, 7.8, TABLE_1),),
        remark=UPSCALED,
    ),
    Recipe(
        "hvu",
        "resnet50",
        "frameexit",
        overrides={"gates.beta": 0.001},
        published=(Published(45.7, 8.6, HVU_TABLE),),
        remark="`gates.beta: 0.00001` gives the table's other row, 49.2 at 18.7",
    ),
    Recipe(
        "hvu",
        "efficientnet_b3",
        "frameexit",
        overrides={"model.input_size": 300, "gates.beta": 0.001},
        published=(Published(47.7, 11.7, HVU_TABLE),),
        remark=f"`gates.beta: 0.01` gives the table's other row, 46.1 at 5.7; {UPSCALED}",
    ),
    Recipe("ucf101", "mobilenet_v2", "frameexit", overrides={"evaluate.first_threshold": 0.95, "gates.beta": 0.002}),
    Recipe("ucf101", "mobilenet_v2", "layer", overrides={"model.crm_scale": 1}, remark="thresholds searched on val"),
    Recipe("ucf101", "mobilenet_v2", "full"),
    Recipe(
        "ucf101", "mobilenet_v2", "random", overrides={"model.crm_scale": 1}, remark="exit probability searched on val"
    ),
    Recipe(
        "jhmdb",
        "mobilenet_v2",
        overrides=SEARCHED,
        remark="a small benchmark, not in the papers: the settings of `folder_mobilenet_v2` at 112 pixels",
    ),
    Recipe(
        "folder", "mobilenet_v2", overrides=SEARCHED, remark="your own clips, one folder per class: docs/real_clips.md"
    ),
)
