"""Every language says all that English says, in its own words, and calls nodes by the names that it gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dev import locales

Json = dict[str, Any]
Texts = dict[str, str]

# What is written the same in another language.
SAME = {
    "fr": {"image", "latent", "gamma"},
    "es": {"gamma"},
    "de": {"LayerDiffuse Transparent"},
    "it": {"area", "file", "gamma"},
    "tr": {"model"},
}
# Short for something in any language, so that a text may be nothing else.
INTERNATIONAL = {"VAE", "CLIP", "Latent", "RGB", "RGBA"}
SCRIPTS = {
    "zh": "\u4e00-\u9fff",
    "zh-TW": "\u4e00-\u9fff",
    "ja": "\u3040-\u30ff\u4e00-\u9fff",
    "ko": "\uac00-\ud7af",
    "ru": "\u0400-\u04ff",
    "he": "\u0590-\u05ff",
    "ar": "\u0600-\u06ff",
    "fa": "\u0600-\u06ff",
}
NUMBER = re.compile(r"\d+(?:\.\d+)?")
LITERAL = re.compile(
    r"models/\w+|\bSD1\.5\b|\bSDXL\b|\bFlux\b|FLUX\.1|\bControlNet\b|\bLoRA\b|\bIPAdapter\b|\b(?:crop|stretch|auto|conv)\b"
)


def english_texts() -> Texts:
    return locales.leaves(json.loads((locales.LOCALES / locales.ENGLISH / locales.FILE).read_text(encoding="utf-8")))


ENGLISH = english_texts()
LANGUAGES = {language: locales.leaves(texts) for language, texts in locales.languages()}
NAMES = {key: text for key, text in ENGLISH.items() if key.endswith(".display_name")}
# Known to those who used them by these names only, in every language.
OLDER_NAMES = {text for key, text in NAMES.items() if key.startswith("LayeredDiffusion")}

each_language = pytest.mark.parametrize("language", LANGUAGES)


def assert_none(problems: Iterator[str]) -> None:
    found = list(problems)
    assert not found, "\n" + "\n".join(found)


def test_all_languages_are_there() -> None:
    assert set(LANGUAGES) == set(locales.TRANSLATIONS)


@each_language
def test_nothing_is_missing_or_stale(language: str) -> None:
    """`python3 dev/comfyui.py run dev/locales.py` fills in what is known already and takes out what is stale."""
    texts = LANGUAGES[language]
    missing, stale = sorted(ENGLISH.keys() - texts.keys()), sorted(texts.keys() - ENGLISH.keys())
    assert not missing, "translate\n" + "\n".join(f"{key}: {ENGLISH[key]}" for key in missing)
    assert not stale, "run dev/locales.py, which takes out\n" + "\n".join(stale)


@each_language
def test_files_are_as_the_command_writes_them(language: str) -> None:
    """In the order of the English file: what belongs together is then found together."""
    assert list(LANGUAGES[language]) == [key for key in ENGLISH if key in LANGUAGES[language]]
    path = locales.LOCALES / language / locales.FILE
    assert path.read_text(encoding="utf-8") == locales.render(json.loads(path.read_text(encoding="utf-8")))


@each_language
def test_nothing_is_left_in_english(language: str) -> None:
    def problems() -> Iterator[str]:
        script = SCRIPTS.get(language)
        for key, text in LANGUAGES[language].items():
            if text in OLDER_NAMES | INTERNATIONAL:
                continue
            same = text == ENGLISH.get(key) and text not in SAME.get(language, set())
            if same or (script is not None and not re.search(f"[{script}]", text)):
                yield f"{key}: {text}"

    assert_none(problems())


@each_language
def test_names_of_nodes_tell_them_apart(language: str) -> None:
    names = [text for key, text in LANGUAGES[language].items() if key.endswith(".display_name")]
    assert len(set(names)) == len(names)


@each_language
def test_texts_call_nodes_by_their_names_in_that_language(language: str) -> None:
    def problems() -> Iterator[str]:
        texts = LANGUAGES[language]
        names = {text: texts[key] for key, text in NAMES.items() if key in texts and text not in OLDER_NAMES}
        pattern = re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))
        for key, text in ENGLISH.items():
            if key in texts and not key.endswith(".display_name"):
                for name in set(pattern.findall(text)):
                    if names[name] not in texts[key]:
                        yield f"{key}: {name} is called {names[name]}: {texts[key]}"

    assert_none(problems())


@each_language
def test_numbers_and_what_one_reads_on_the_screen_stay(language: str) -> None:
    """Shapes, ranges, file names, and the choices of combos, which the frontend does not translate."""

    def problems() -> Iterator[str]:
        for key, text in LANGUAGES[language].items():
            for pattern in (NUMBER, LITERAL):
                lost = {found for found in pattern.findall(ENGLISH.get(key, "")) if found not in text}
                if lost:
                    yield f"{key} lacks {sorted(lost)}: {text}"

    assert_none(problems())


# --- the command ------------------------------------------------------------------------------------------------------------------------


def test_command_fills_in_what_is_known_and_leaves_out_what_has_changed() -> None:
    before = {"A": {"display_name": "Node", "inputs": {"x": {"name": "mask", "tooltip": "Old."}}}, "Gone": {"display_name": "Gone"}}
    texts = {"Gone": {"display_name": "Weg"}, "A": {"inputs": {"x": {"name": "Maske", "tooltip": "Alt."}}, "display_name": "Knoten"}}
    english = {
        "A": {"display_name": "Node", "inputs": {"x": {"name": "mask", "tooltip": "New."}}},
        "B": {"display_name": "Other", "inputs": {"y": {"name": "mask"}}},
    }
    found = locales.filled(english, before, texts)
    assert found == {"A": {"display_name": "Knoten", "inputs": {"x": {"name": "Maske"}}}, "B": {"inputs": {"y": {"name": "Maske"}}}}
    assert locales.keys(english) - locales.keys(found) == {"A.inputs.x.tooltip", "B.display_name"}
    assert list(found["A"]) == ["display_name", "inputs"]
