"""MedSegBench's 35 sets: what their owners say of them, as medsegbench 1.0.0 has it (info.py).

Kus and Aydin 2024, https://doi.org/10.1038/s41597-024-04159-2. MD5s are without the blanks that some of
that package's have behind them. Names of two parts are spelt right here. Where its first reference is
another set's, the next one stands here.
"""

from dataclasses import dataclass

SIZES = (128, 256, 512)
RECORDS = {"wbc": 13359660, "yeaz": 13359660}  # of Zenodo; all others:
RECORD = 13358372
TWO = ("background", "foreground")

# What the parts of a set are; another word is the meta column that says which part an image is of.
LABELS = "labels"  # classes of images
MASKS = "masks"  # other masks of the same images
SUBSETS = "subsets"  # they don't add up to the whole


@dataclass(frozen=True)
class Part:
    """A "category" of MedSegBench: some of a set's images, or other masks of them."""

    key: str  # behind the names of its arrays: "C1"
    name: str
    counts: tuple[int, int, int]  # of train, val and test


@dataclass(frozen=True)
class MedsegSet:
    """One set: what is known of it without its file."""

    flag: str
    modality: str
    n_channels: int
    counts: tuple[int, int, int]  # of train, val and test
    licence: str
    reference: str
    md5s: tuple[str, str, str]  # of SIZES
    classes: tuple[str, ...] = TWO  # of the values 0, 1, ...
    background: str = "background"  # one of the classes
    ignored: str = ""  # one of the classes that is none
    instances: bool = False  # values are numbers of objects: all but 0 are class 1
    parts: tuple[Part, ...] = ()  # of labels of two classes the second is the positive one
    parts_are: str = ""
    of_volumes: bool = False  # images are slices
    note: str = ""

    @property
    def whole_is_parts(self) -> bool:
        """Whether each image is of one part, so that reading these tells which."""
        return bool(self.parts) and self.parts_are not in (MASKS, SUBSETS)


# fmt: off
SETS = (
    MedsegSet("kvasir", "endoscopy", 3, (700, 100, 200), "research and education only; commercial use needs written permission", "https://doi.org/10.1007/978-3-030-37734-2_37",
        ("2c703d693d16437a2891f1aec900a1ea", "4ce7118decc9973a252e9a9dd6c1e47e", "f3ab71c25d07077c85b5d98cfe615f9d"),
    ),
    MedsegSet("isic2018", "dermoscopy", 3, (2594, 100, 1000), "CC BY-NC 4.0", "https://doi.org/10.48550/arXiv.1902.03368",
        ("a89f5259e99e146f1e983173ced69903", "03680ffc3fc8e0221f161d445c8a94d4", "000a76e688e6d48543b9563a8c406ae4"),
    ),
    MedsegSet("drive", "fundus", 3, (18, 2, 20), "CC BY 4.0", "https://doi.org/10.1109/TMI.2004.825627",
        ("39582fd6528bdd7b66ed92c6dd9f26aa", "56f96cf647df7ba48c56586c8d0d2cf8", "9182813e1f337e6207ce421847fb0b0b"),
    ),
    MedsegSet("chasedb1", "fundus", 3, (19, 2, 7), "CC BY 4.0", "https://doi.org/10.1016/j.bspc.2018.06.007",
        ("55e391c5002493c77ceb912ef1070cbe", "d72833a2603872150a12b2763cfe454f", "7c94b4d937474a52605cc5c46a092660"),
    ),
    MedsegSet("dca1", "X-ray angiography", 1, (93, 13, 28), "none stated; for research and comparison", "https://doi.org/10.3390/app9245507",
        ("cf95012398d384bb82f53b84c8051df8", "1488e23fa62d49c6c275d634e78eac5b", "020059b0e1d0afb8b5d41d7c8e48cd78"),
    ),
    MedsegSet("chuac", "X-ray angiography", 1, (21, 3, 6), "CC BY 4.0", "https://figshare.com/s/4d24cf3d14bc901a94bf",
        ("8d3c9e695209c3268828b7e91dac8fed", "0d968dc7adf83f5f7348b88b807dbf14", "e5dffcc711859e3b67fc9cfefe4f1372"),
    ),
    MedsegSet("wbc", "microscopy", 3, (280, 40, 80), "CC BY 4.0", "https://doi.org/10.1016/j.micron.2018.01.010",
        ("7336757d11cec155d3cb940d3ab92372", "5002dfde36536a9f04eeeae87e0631ec", "30d13d8851d27731cdfb51e64cc4ea6b"),
        classes=("background", "cytoplasm", "nucleus"),
        parts=(
            Part("C1", "Lymphocyte", (146, 20, 43)),
            Part("C2", "Monocyte", (63, 9, 18)),
            Part("C3", "Neutrophil", (44, 6, 13)),
            Part("C4", "Eosinophil", (23, 3, 8)),
        ), parts_are=SUBSETS,
    ),
    MedsegSet("idrib", "fundus", 3, (47, 6, 27), "CC BY 4.0", "https://doi.org/10.3390/data3030025",
        ("f008052164fa4cc79b34df984a0e3eac", "543c16d496b843655b65df6128474275", "ed2f6550e8bb7b9b0ab82c457d9a30be"),
        parts=(
            Part("C1", "Microaneurysms", (47, 6, 27)),
            Part("C2", "Hemorrhages", (47, 6, 27)),
            Part("C3", "Hard Exudates", (47, 6, 27)),
            Part("C4", "Optic Disc", (47, 6, 27)),
        ), parts_are=MASKS,
    ),
    MedsegSet("cellnuclei", "microscopy", 3, (469, 67, 134), "CC0", "https://doi.org/10.1038/s41592-019-0612-7",
        ("65440774822a5d13e015915661cc9f6c", "bce679a41ed55486a0a5b0a7471f2b43", "3fca3b448eb4985343d80fe0819ac4d6"),
    ),
    MedsegSet("pandental", "panoramic X-ray", 1, (81, 11, 24), "CC BY 4.0", "https://doi.org/10.1117/1.JMI.2.4.044003",
        ("08a455cb39ddd0e80ac79c01a631fd4c", "bbf9aecae003ab868958c8bb66fdf534", "6387bfe558ea9cabab80460ddb4f8112"),
        instances=True,
    ),
    MedsegSet("bbbc010", "microscopy", 1, (70, 10, 20), "none stated", "https://bbbc.broadinstitute.org/BBBC010",
        ("ee120b3e524d0e545cd0ef14a3a51769", "b4c4e7efab9cc6106557bf8925203203", "b13cb2a52ff3705e8df1bd88cd1a7d54"),
    ),
    MedsegSet("dynamicnuclear", "microscopy", 1, (4950, 1417, 717), "Modified Apache 2.0", "https://doi.org/10.1371/journal.pcbi.1005177",
        ("d03dd5f0111572ded704088547cdd343", "23f77cfaa57f97379041cf5642d3ea7a", "a9fa203eea7adfae4d6221518a9a0a76"),
        instances=True,
    ),
    MedsegSet("nuset", "microscopy", 1, (2385, 340, 683), "CC BY 4.0", "https://doi.org/10.1371/journal.pcbi.1008193",
        ("fa00c1d07f70bebfde143cdd1fb71a0d", "adca30f019226ac54edfcf065b407d1c", "0f8721a9df92da77ec1825c7917e6886"),
    ),
    MedsegSet("nuclei", "histology", 3, (98, 14, 29), "BSD-3", "https://doi.org/10.4103/2153-3539.186902",
        ("ed5f59ec7b70a44dbe5215a9adb39963", "b7039dba2f084063b33d89ea4ec90cb6", "ac99716bd0d0d7ee886feb28ed5549b1"),
    ),
    MedsegSet("tnbcnuclei", "histology", 3, (35, 5, 10), "CC BY 4.0", "https://doi.org/10.1109/TMI.2018.2865709",
        ("011766acd5f140a7ad577b13b45b34ec", "5b2a8a2ef9d18971cc27c0c4529f0fcf", "92189b8e385ab625a64ce9823ac354aa"),
    ),
    MedsegSet("monusac", "histology", 3, (188, 21, 101), "CC BY-NC-SA 4.0", "https://doi.org/10.1109/TMI.2021.3085712",
        ("b8866d8ad0ed2bdcba7dd1bc82ea4e62", "4fd7301493f76c79de2fee37faa30fce", "2b75fd1ba3b91586a2b0da1594a70d29"),
        classes=("background", "epithelial", "lymphocyte", "macrophage", "neutrophil", "ambiguous"),
        ignored="ambiguous",
    ),
    MedsegSet("deepbacs", "microscopy", 1, (17, 2, 15), "CC BY 4.0", "https://doi.org/10.1038/s42003-022-03634-z",
        ("496516a356190d4d84e081224182583b", "5bd2d12a641fed6889a148cfb8ab4fd3", "75c2299a6f7e2386d3342ced7e7827ca"),
    ),
    MedsegSet("brifiseg", "microscopy", 1, (1005, 115, 240), "CC BY 4.0", "https://arxiv.org/pdf/2211.03072",
        ("8ad36916999769d94a98b838226fd589", "be00218d75aaa50624c63077e9efc843", "aa1bda7ba872defaba2c8762af1987e7"),
        parts=(
            Part("C1", "Target 1 A549", (201, 23, 48)),
            Part("C2", "Target 2 A549", (201, 23, 48)),
            Part("C3", "HeLa", (201, 23, 48)),
            Part("C4", "MCF7", (201, 23, 48)),
            Part("C5", "RPE1", (201, 23, 48)),
        ), parts_are="cell_line",
    ),
    MedsegSet("busi", "ultrasound", 1, (452, 64, 131), "CC0", "https://doi.org/10.1016/j.dib.2019.104863",
        ("68877751adef0ab639de73946aac0985", "198aea70968b71adf593b32c41a6e995", "fab7550a6c5240e35da8ce5d31bc1c61"),
        parts=(
            Part("C1", "benign", (305, 43, 89)),
            Part("C2", "malignant", (147, 21, 42)),
        ), parts_are=LABELS,
        note="the normal images of BUSI are left out by MedSegBench",
    ),
    MedsegSet("covid19radio", "chest X-ray", 1, (14814, 2115, 4236), "academic, non-commercial", "https://doi.org/10.1109/ACCESS.2020.3010287",
        ("49c72b01477c1656acd2842ec71df5fd", "f1b1de2f1a22d163f553d9b554c742ec", "69c39062cd60a45cd8d0ed1a1b43e493"),
        parts=(
            Part("C1", "covid", (2531, 361, 724)),
            Part("C2", "lung opacity", (4208, 601, 1203)),
            Part("C3", "normal", (7134, 1019, 2039)),
            Part("C4", "viral pneumonia", (941, 134, 270)),
        ), parts_are=LABELS,
    ),
    MedsegSet("covidquex", "chest X-ray", 1, (1864, 466, 583), "CC BY-SA 4.0", "https://doi.org/10.1016/j.compbiomed.2021.105002",
        ("338a3118801d5cbcbb5986bb5178a7a2", "75861f1f34a4af16f1ab91d93b5518a0", "ea1a64adbb57ca7a60373c1b244fcff6"),
    ),
    MedsegSet("cystoidfluid", "OCT", 3, (703, 101, 202), "CC BY-NC-SA 4.0", "https://doi.org/10.34740/KAGGLE/DS/2277068",
        ("af9e66b097c3f78d3e1a5b88efdb85cf", "d1eadcfcc12fd560fcb52afc596422da", "e16c60557bd7ec391b5fffb7feb9d1e1"),
    ),
    MedsegSet("isic2016", "dermoscopy", 3, (810, 90, 379), "CC BY-NC 4.0", "https://doi.org/10.1109/ISBI.2018.8363547",
        ("4fcee7c35a990f25f2c82ad3ed2f4f54", "ee3fc6b5fffdc039e963ab21ff18e42e", "344fea72eeb0870421c88140440831e9"),
    ),
    MedsegSet("polypgen", "endoscopy", 3, (984, 140, 288), "CC BY 4.0", "https://doi.org/10.48550/arXiv.2202.12031",
        ("ff777edab5fccb224d44426364eb384c", "325423a8bfaa582ffa283c95acce6992", "43a05773a4ce5cece31bb63dfa7b897d"),
        parts=(
            Part("C1", "Ambroise Paré Hospital, Paris, France", (176, 24, 51)),
            Part("C2", "Istituto Oncologico Veneto, Padova, Italy", (190, 28, 52)),
            Part("C3", "Centro Riferimento Oncologico, IRCCS, Italy", (318, 45, 93)),
            Part("C4", "Oslo University Hospital, Oslo, Norway", (98, 15, 33)),
            Part("C5", "John Radcliffe Hospital, Oxford, UK", (144, 20, 42)),
            Part("C6", "University of Alexandria, Alexandria, Egypt", (58, 8, 17)),
        ), parts_are="site",
    ),
    MedsegSet("promise12", "MRI", 1, (1031, 147, 295), "none stated", "https://doi.org/10.1016/j.media.2013.12.002",
        ("879618db3641a09fa6bdec6be93e13c5", "f5dbdbfe05b80808c4d541a63f64521c", "6943b242f5b8d65600fe6486eb71b483"),
        of_volumes=True,
    ),
    MedsegSet("robotool", "surgery", 3, (350, 50, 100), "CC BY 4.0", "https://www.synapse.org/Synapse:syn22427422",
        ("6b7517c8637b44d11d9af7accdc3d3c8", "7e644bc28160db7e4af27b164844f136", "72d142950626d71b1df5093ae56172a8"),
    ),
    MedsegSet("uwaterlooskincancer", "skin photographs", 3, (143, 19, 44), "non-commercial", "https://uwaterloo.ca/vision-image-processing-lab/research-demos/skin-cancer-detection",
        ("46e18bc41733bf5750738e418b1c7cbb", "08636b16baf28a5bbbf40a664095a2b5", "1bf86aae7d81853f973b8b7ccb8a048e"),
        parts=(
            Part("C2", "not melanoma", (60, 8, 19)),
            Part("C1", "melanoma", (83, 11, 25)),
        ), parts_are=LABELS,
    ),
    MedsegSet("ultrasoundnerve", "ultrasound", 1, (1651, 223, 449), "none stated", "https://www.kaggle.com/competitions/ultrasound-nerve-segmentation/overview",
        ("5180ca0d1f0654765d23bc30fc073e4a", "24bca8f55e20c46c4891ae0fc92421f2", "9f6e4127e75595e9a63f0469af01a605"),
    ),
    MedsegSet("usforkidney", "ultrasound", 1, (3210, 458, 918), "GPL 2", "https://doi.org/10.1016/j.ultras.2022.106706",
        ("bc361af0f49f47a4d60b0717fb206661", "4425d8628061a254ba83659c76602f20", "aad4fd208535c90d9a8bebe75714698c"),
        of_volumes=True,
    ),
    MedsegSet("yeaz", "microscopy", 1, (360, 96, 251), "none stated", "https://doi.org/10.1038/s41467-020-19557-4",
        ("e114e0f00da84e5a8940bbf7e7e06e99", "e78c3fbb905650f7c86ecd11deec5569", "7328e0783e758d5da76729d420116a25"),
    ),
    MedsegSet("bkai-igh", "endoscopy", 3, (700, 100, 200), "none stated; public, of the BKAI Research Center", "https://doi.org/10.1007/978-3-030-90436-4_2",
        ("3197cdeb1a4b0d2bec47d7a8ea3afc8f", "3c27aa13dfa8e3039fcb173c0c62cef2", "f0d977e33084307683475dbc160a3dc1"),
        classes=("background", "neoplastic polyps", "non-neoplastic polyps"),
    ),
    MedsegSet("m2caiseg", "surgery", 3, (245, 307, 62), "CC BY-NC 4.0", "https://doi.org/10.48550/arXiv.2008.10134",
        ("1e56c9f134dd97612d5cb0d3cbc8dc6b", "e82a9d636914beea1516953aa1afbb23", "3723c8d5acb9b046c70752847f3ed426"),
        classes=("unknown", "grasper", "bipolar", "hook", "scissors", "clipper", "irrigator", "specimen-bag", "trocars", "clip", "liver", "gall-bladder", "fat", "organ", "artery", "intestine", "bile", "blood", "black"),
        background="black", ignored="unknown",
    ),
    MedsegSet("abdomenus", "ultrasound", 1, (569, 64, 293), "none stated; public on Kaggle", "https://doi.org/10.1007/s11548-019-02046-5",
        ("86b0bbd84f7df3726c29e6b605c83a72", "c2eb21d1a93d857c472b01a72a210030", "6e46ed122fea25c7370d86073ea38188"),
        classes=("background", "liver", "kidney", "pancreas", "vessels", "adrenals", "gallbladder", "bones", "spleen"),
    ),
    MedsegSet("fhpsaop", "ultrasound", 1, (2800, 400, 800), "CC BY-NC 4.0", "https://doi.org/10.1016/j.dib.2022.107904",
        ("650747dbd726fb5560ca767af979537c", "db6f6aa47f03dd67d2f1d23d2ce7081e", "337d11e705ae507d94fbc8f06bc15ae5"),
        classes=("background", "pubic symphysis", "fetal head"),
    ),
    MedsegSet("mosmedplus", "CT", 3, (1910, 272, 547), "CC BY-NC-ND 3.0", "https://doi.org/10.48550/arXiv.2005.06465",
        ("537e46abb7623a1c988ef49c32f66d7d", "9a5cc1ee6c714cd64783814df5d6ec63", "15fa5aa86962803e93e6d683dcf329d5"),
        of_volumes=True,
    ),
)
