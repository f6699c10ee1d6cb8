"""Which papers the methods of a report rest on, by rules over the names that were used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One reference: a BibTeX key, authors, title, venue and year."""

    key: str
    authors: str
    title: str
    venue: str
    year: int

    @property
    def text(self) -> str:
        """One line for a reader."""
        return f"{self.authors.replace(' and ', ', ')}: {self.title}. {self.venue}, {self.year}."

    @property
    def bibtex(self) -> str:
        """The entry as BibTeX."""
        return (
            f"@misc{{{self.key},\n  author = {{{self.authors}}},\n  title = {{{{{self.title}}}}},\n"
            f"  howpublished = {{{self.venue}}},\n  year = {{{self.year}}}\n}}"
        )


IBP = Paper(
    key="gowal2018ibp",
    authors="Sven Gowal and others",
    title="On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models",
    venue="arXiv:1810.12715",
    year=2018,
)
CROWN = Paper(
    key="zhang2018crown",
    authors="Huan Zhang and Tsui-Wei Weng and Pin-Yu Chen and Cho-Jui Hsieh and Luca Daniel",
    title="Efficient Neural Network Robustness Certification with General Activation Functions",
    venue="NeurIPS",
    year=2018,
)
CROWN_IBP = Paper(
    key="zhang2020crownibp",
    authors="Huan Zhang and others",
    title="Towards Stable and Efficient Training of Verifiably Robust Neural Networks",
    venue="ICLR",
    year=2020,
)
TSUZUKU = Paper(
    key="tsuzuku2018lipschitz",
    authors="Yusuke Tsuzuku and Issei Sato and Masashi Sugiyama",
    title="Lipschitz-Margin Training: Scalable Certification of Perturbation Invariance for "
    "Deep Neural Networks",
    venue="NeurIPS",
    year=2018,
)
GLORO = Paper(
    key="leino2021gloro",
    authors="Klas Leino and Zifan Wang and Matt Fredrikson",
    title="Globally-Robust Neural Networks",
    venue="ICML",
    year=2021,
)
COHEN = Paper(
    key="cohen2019smoothing",
    authors="Jeremy Cohen and Elan Rosenfeld and J. Zico Kolter",
    title="Certified Adversarial Robustness via Randomized Smoothing",
    venue="ICML",
    year=2019,
)
MILP = Paper(
    key="tjeng2019milp",
    authors="Vincent Tjeng and Kai Xiao and Russ Tedrake",
    title="Evaluating Robustness of Neural Networks with Mixed Integer Programming",
    venue="ICLR",
    year=2019,
)
PGD = Paper(
    key="madry2018pgd",
    authors="Aleksander Madry and Aleksandar Makelov and Ludwig Schmidt and Dimitris Tsipras and "
    "Adrian Vladu",
    title="Towards Deep Learning Models Resistant to Adversarial Attacks",
    venue="ICLR",
    year=2018,
)
FGSM = Paper(
    key="goodfellow2015fgsm",
    authors="Ian Goodfellow and Jonathon Shlens and Christian Szegedy",
    title="Explaining and Harnessing Adversarial Examples",
    venue="ICLR",
    year=2015,
)

RULES: tuple[tuple[str, tuple[Paper, ...]], ...] = (
    ("crown-ibp", (CROWN_IBP,)),
    ("crownibp", (CROWN_IBP,)),
    ("crown", (CROWN,)),
    ("ibp", (IBP,)),
    ("interval", (IBP,)),
    ("lipschitz", (TSUZUKU, GLORO)),
    ("gloro", (GLORO,)),
    ("smooth", (COHEN,)),
    ("gaussian", (COHEN,)),
    ("milp", (MILP,)),
    ("exact", (MILP,)),
    ("pgd", (PGD,)),
    ("adversarial", (PGD,)),
    ("fgsm", (FGSM,)),
)


def cited(names: Iterable[str]) -> list[Paper]:
    """Papers for the method and recipe names used, each once, in the order of first use.

    In each name the longest matching rule wins for its part of the name, so `crown-ibp` cites
    itself and neither CROWN nor IBP.
    """
    found: dict[str, Paper] = {}
    for name in names:
        rest = name.lower().replace("_", "-")
        for part, papers in RULES:
            if part in rest:
                rest = rest.replace(part, " ")
                found.update({paper.key: paper for paper in papers})
    return list(found.values())


def used(methods: Iterable[str], cards: Iterable[Mapping[str, Any]]) -> list[str]:
    """Method names, then the training recipes that the models' cards name."""
    recipes = [str(card["recipe"]) for card in cards if card.get("recipe")]
    return list(dict.fromkeys([*methods, *recipes]))
