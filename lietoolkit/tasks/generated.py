"""Instruction families and preference pairs, generated from a seed.

Every row is made by a few lines of code, so the right answer is known without a model. A row
belongs to the training or to the held-out split by the checksum of its prompt: the two splits share
no prompt, whatever their seeds. Completions begin with a space, because prompts do not end in one.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from lietoolkit.errors import InputError

Row = dict[str, str]


def _list(words: str) -> list[str]:
    return words.split()


def _table(pairs: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in pairs.split())


KINDS = {
    "animal": "dog cat horse cow sheep goat pig mouse tiger lion bear wolf fox rabbit",
    "bird": "robin duck hen owl crow swan goose eagle hawk dove",
    "fruit": "apple pear plum fig grape lemon melon peach cherry mango",
    "color": "red blue green yellow black white brown pink gray purple",
    "tool": "hammer saw drill spade rake axe knife file",
    "metal": "iron gold silver copper tin lead zinc steel",
    "drink": "tea coffee milk juice water wine beer cocoa",
    "body part": "hand foot arm leg nose eye ear knee",
}
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words.split()}
WORDS = tuple(KIND_OF)

PLURALS = _table(
    "dog:dogs cat:cats horse:horses cow:cows goat:goats pig:pigs tiger:tigers book:books "
    "tree:trees car:cars house:houses river:rivers table:tables door:doors owl:owls "
    "apple:apples fox:foxes box:boxes bus:buses dish:dishes watch:watches church:churches "
    "class:classes glass:glasses brush:brushes city:cities baby:babies lady:ladies "
    "story:stories "
    "party:parties cherry:cherries wolf:wolves knife:knives leaf:leaves wife:wives life:lives "
    "shelf:shelves half:halves man:men woman:women child:children foot:feet tooth:teeth "
    "goose:geese mouse:mice person:people sheep:sheep fish:fish key:keys day:days boy:boys "
    "toy:toys potato:potatoes tomato:tomatoes hero:heroes"
)
PASTS = _table(
    "walk:walked jump:jumped play:played call:called open:opened look:looked talk:talked "
    "ask:asked help:helped work:worked like:liked move:moved close:closed hope:hoped "
    "use:used dance:danced try:tried cry:cried carry:carried study:studied stop:stopped "
    "plan:planned drop:dropped go:went see:saw take:took give:gave come:came eat:ate "
    "drink:drank run:ran write:wrote read:read sing:sang swim:swam begin:began break:broke "
    "speak:spoke drive:drove ride:rode know:knew grow:grew fly:flew buy:bought think:thought "
    "bring:brought catch:caught teach:taught make:made find:found tell:told sell:sold "
    "keep:kept sleep:slept feel:felt lose:lost put:put cut:cut"
)
OPPOSITES = _table(
    "hot:cold big:small fast:slow high:low old:new open:closed light:dark hard:soft "
    "rich:poor early:late full:empty happy:sad strong:weak long:short wide:narrow "
    "clean:dirty wet:dry loud:quiet near:far first:last up:down left:right day:night "
    "good:bad true:false young:elderly thick:thin deep:shallow cheap:expensive "
    "safe:dangerous "
    "always:never begin:end buy:sell give:take win:lose love:hate push:pull"
)
OPPOSITES |= {b: a for a, b in OPPOSITES.items()}
FRENCH = _table(
    "dog:chien cat:chat horse:cheval cow:vache house:maison book:livre tree:arbre water:eau "
    "milk:lait bread:pain apple:pomme pear:poire red:rouge blue:bleu green:vert white:blanc "
    "black:noir hand:main foot:pied nose:nez eye:oeil day:jour night:nuit sun:soleil moon:lune "
    "king:roi queen:reine door:porte window:fenetre table:table friend:ami school:ecole "
    "city:ville river:fleuve sea:mer mountain:montagne fire:feu snow:neige rain:pluie "
    "street:rue bird:oiseau fish:poisson flower:fleur garden:jardin kitchen:cuisine"
)
NAMES = _list("Ann Ben Carla Dan Eva Finn Gina Hugo Ida Jack Kate Leo Maria Nick Olga Paul")
CITIES = _list("Paris Rome Berlin Madrid Oslo Lima Cairo Tokyo Delhi Boston")
THINGS = _list("soup movie book song hotel game cake train room lesson")
PRAISE = _list("great delightful wonderful excellent lovely superb")
BLAME = _list("awful boring terrible dreadful poor horrible")
OPERATIONS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _words(rng: random.Random, low: int, high: int) -> list[str]:
    return rng.sample(WORDS, rng.randint(low, high))


def _pair(rng: random.Random, templates: str, answer: str, **values: object) -> tuple[str, str]:
    """Fill one of the templates (separated by ``|``)."""
    return rng.choice(templates.split("|")).format(**values), answer


def _copy(rng: random.Random) -> tuple[str, str]:
    words = " ".join(_words(rng, 2, 5))
    return _pair(rng, "Repeat: {w}\nAnswer:|Copy these words: {w}\nCopy:", words, w=words)


def _reverse(rng: random.Random) -> tuple[str, str]:
    words = _words(rng, 2, 4)
    templates = "Reverse the words: {w}\nReversed:|Say it backwards: {w}\nAnswer:"
    return _pair(rng, templates, " ".join(words[::-1]), w=" ".join(words))


def _uppercase(rng: random.Random) -> tuple[str, str]:
    words = " ".join(_words(rng, 1, 3))
    templates = "Write in capitals: {w}\nAnswer:|Make this uppercase: {w}\nUppercase:"
    return _pair(rng, templates, words.upper(), w=words)


def _addition(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(0, 30), rng.randint(0, 30)
    return _pair(rng, "What is {a} + {b}?\nAnswer:|Add {a} and {b}.\nSum:", str(a + b), a=a, b=b)


def _comparison(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample(range(100), 2)
    ask, best = rng.choice((("larger", max), ("smaller", min)))
    templates = "Which is {ask}, {a} or {b}?\nAnswer:|Pick the {ask} number: {a} {b}\nNumber:"
    return _pair(rng, templates, str(best(a, b)), ask=ask, a=a, b=b)


def _plural(rng: random.Random) -> tuple[str, str]:
    one, many = rng.choice(sorted(PLURALS.items()))
    templates = (
        "Plural of {one}?\nAnswer:|One {one}, two|Write the plural: {one}\nPlural:"
        "|There is one {one}. There are {n}"
    )
    return _pair(rng, templates, many, one=one, n=rng.choice(("three", "four", "many", "some")))


def _past_tense(rng: random.Random) -> tuple[str, str]:
    verb, past = rng.choice(sorted(PASTS.items()))
    templates = (
        "Past tense of {verb}?\nAnswer:|Today I {verb}. Yesterday I|Write in the past: I {verb}\n"
        "Past: I"
        "|{name} will {verb}. Last week {name}"
    )
    return _pair(rng, templates, past, verb=verb, name=rng.choice(NAMES[:4]))


def _antonym(rng: random.Random) -> tuple[str, str]:
    word, opposite = rng.choice(sorted(OPPOSITES.items()))
    templates = (
        "Opposite of {w}?\nAnswer:|The opposite of {w} is|Give the opposite: {w}\nOpposite:"
        "|Not {w}, but the reverse:|What is the contrary of {w}?\nWord:"
    )
    return _pair(rng, templates, opposite, w=word)


def _category(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(WORDS)
    templates = (
        "What kind of thing is {w}?\nKind:|The word {w} names a kind of|Category of {w}?\nAnswer:"
        "|Classify: {w}\nClass:"
    )
    return _pair(rng, templates, KIND_OF[word], w=word)


def _count(rng: random.Random) -> tuple[str, str]:
    words = _words(rng, 1, 7)
    templates = "How many words? {w}\nAnswer:|Count the words: {w}\nCount:"
    return _pair(rng, templates, str(len(words)), w=" ".join(words))


def _sort(rng: random.Random) -> tuple[str, str]:
    words = _words(rng, 2, 4)
    templates = "Sort the words: {w}\nSorted:|Put in alphabetical order: {w}\nAnswer:"
    return _pair(rng, templates, " ".join(sorted(words)), w=" ".join(words))


def _yes_no(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(WORDS)
    kind = KIND_OF[word] if rng.random() < 0.5 else rng.choice(sorted(KINDS))
    templates = "Is {w} {kind}?\nAnswer:|Yes or no: {w} is {kind}.\nAnswer:"
    right = "yes" if kind == KIND_OF[word] else "no"
    return _pair(rng, templates, right, w=word, kind=_with_article(kind))


def _json(rng: random.Random) -> tuple[str, str]:
    name, age, city = rng.choice(NAMES), rng.randint(10, 79), rng.choice(CITIES)
    templates = (
        "Write JSON: {name}, aged {age}, from {city}\nJSON:"
        "|Make a record of {name} ({city}, {age})\nJSON:"
    )
    answer = f'{{"name": "{name}", "age": {age}, "city": "{city}"}}'
    return _pair(rng, templates, answer, name=name, age=age, city=city)


def _code(rng: random.Random) -> tuple[str, str]:
    name, sign = rng.choice(sorted(OPERATIONS.items()))
    a, b = rng.sample("abcmnpqrstuvwxyz", 2)
    templates = (
        "Complete the code:\ndef {name}({a}, {b}):\n    return"
        "|Complete the code:\n{name} = lambda {a}, {b}:"
    )
    return _pair(rng, templates, f"{a} {sign} {b}", name=name, a=a, b=b)


def _translation(rng: random.Random) -> tuple[str, str]:
    english, french = rng.choice(sorted(FRENCH.items()))
    templates = (
        "Translate to French: {e}\nFrench:|How do you say {e} in French?\nAnswer:"
        "|English: {e}\nFrench:|The French word for {e} is|In French, {e} is called"
        "|Dictionary, English to French. {e}:"
    )
    return _pair(rng, templates, french, e=english)


def _sentiment(rng: random.Random) -> tuple[str, str]:
    good = rng.random() < 0.5
    word, thing = rng.choice(PRAISE if good else BLAME), rng.choice(THINGS)
    templates = (
        "Review: The {thing} was {word}.\nFeeling:|{name} said the {thing} was {word}.\nFeeling:"
        "|Review: What a {word} {thing}!\nFeeling:"
    )
    answer = "positive" if good else "negative"
    return _pair(rng, templates, answer, thing=thing, word=word, name=rng.choice(NAMES))


SFT: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "copy": _copy,
    "reverse": _reverse,
    "uppercase": _uppercase,
    "addition": _addition,
    "comparison": _comparison,
    "plural": _plural,
    "past_tense": _past_tense,
    "antonym": _antonym,
    "category": _category,
    "count": _count,
    "sort": _sort,
    "yes_no": _yes_no,
    "json": _json,
    "code": _code,
    "translation": _translation,
    "sentiment": _sentiment,
}


def _prefer_sum(rng: random.Random) -> tuple[str, str, str]:
    prompt, right = _addition(rng)
    return prompt, right, str(int(right) + rng.choice((1, 2, 10)))


def _prefer_case(rng: random.Random) -> tuple[str, str, str]:
    prompt, right = _uppercase(rng)
    return prompt, right, right.lower()


def _prefer_plural(rng: random.Random) -> tuple[str, str, str]:
    prompt, right = _plural(rng)
    one = next(one for one, many in PLURALS.items() if many == right)
    return prompt, right, one + ("s" if one + "s" != right else "es")


def _prefer_order(rng: random.Random) -> tuple[str, str, str]:
    prompt, right = _sort(rng)
    return prompt, right, " ".join(right.split()[::-1])


def _prefer_language(rng: random.Random) -> tuple[str, str, str]:
    english, french = rng.choice([(e, f) for e, f in sorted(FRENCH.items()) if e != f])
    templates = (
        "Answer in French: what is the word for {e}?\nAnswer:"
        "|Please reply in French. Word: {e}\nReply:"
        "|Say {e}, but in French:|{name} speaks French only. Tell {name} the word {e}:"
    )
    return *_pair(rng, templates, french, e=english, name=rng.choice(NAMES)), english


def _prefer_polite(rng: random.Random) -> tuple[str, str, str]:
    thing, name = rng.choice(THINGS), rng.choice(NAMES)
    templates = (
        "{name} asks: Where is my {thing}?\nReply:|{name} has lost a {thing}. Write to {name}:"
    )
    good = f"{rng.choice(('Thank you', 'Sorry'))}, {name}. I will find your {thing}."
    bad = f"{rng.choice(('Go away', 'Be quiet'))}, {name}. Find your {thing} yourself."
    return *_pair(rng, templates, good, name=name, thing=thing), bad


def _prefer_short(rng: random.Random) -> tuple[str, str, str]:
    word = rng.choice(WORDS)
    templates = (
        "Answer in one word. What kind of thing is {w}?\nAnswer:"
        "|Be brief: category of {w}?\nAnswer:"
        "|In a word, {w} names a kind of|Short answer, please. Classify: {w}\nClass:"
    )
    right = KIND_OF[word]
    long = f"I think that {word} is most likely some kind of {right}, as far as I know."
    return *_pair(rng, templates, right, w=word), long


def _prefer_valid_json(rng: random.Random) -> tuple[str, str, str]:
    prompt, right = _json(rng)
    broken = right.replace('"', "'") if rng.random() < 0.5 else right.strip("{}")
    return prompt, right, broken


def _prefer_fact(rng: random.Random) -> tuple[str, str, str]:
    prompt, right = _yes_no(rng)
    return prompt, right, {"yes": "no", "no": "yes"}[right]


PREFERENCES: dict[str, Callable[[random.Random], tuple[str, str, str]]] = {
    "right_sum": _prefer_sum,
    "right_case": _prefer_case,
    "right_plural": _prefer_plural,
    "right_order": _prefer_order,
    "right_fact": _prefer_fact,
    "in_french": _prefer_language,
    "polite": _prefer_polite,
    "short": _prefer_short,
    "valid_json": _prefer_valid_json,
}


def _in_split(prompt: str, split: str) -> bool:
    return (zlib.crc32(prompt.encode()) % 4 == 0) == (split == "eval")


def _generate(
    make: Callable, name: str, fields: tuple, seed: int, rows: int, split: str
) -> list[Row]:
    if rows < 1:
        raise InputError(
            f"rows: expected at least 1, got {rows}; ask for one or more rows a family"
        )
    if split not in ("train", "eval"):
        raise InputError(f'split: expected "train" or "eval", got {split!r}')
    rng = random.Random(f"{name} {seed}")
    seen: set[str] = set()
    made: list[Row] = []
    misses = 0
    while len(made) < rows:
        prompt, *answers = make(rng)
        if prompt in seen or not _in_split(prompt, split):
            misses += 1
            if misses > 2000:  # every prompt of a small family is used up: begin again
                seen.clear()
                misses = 0
            continue
        misses = 0
        seen.add(prompt)
        made.append(dict(zip(fields, (prompt, *(f" {a}" for a in answers)), strict=True)))
    return made


def sft_families(seed: int = 0, rows: int = 64, split: str = "train") -> dict[str, list[Row]]:
    """Make instruction families with right answers, as prompt-completion rows.

    Args:
        seed: same seed, same rows.
        rows: rows of each family; prompts are unique until a small family is used up.
        split: ``"train"`` or ``"eval"``. A prompt is in one split only, for every seed.

    Returns:
        ``{family: [{"prompt": ..., "completion": ...}, ...]}``; a completion starts with a space.

    Raises:
        InputError: ``rows`` below 1 or an unknown split.

    Example:
        >>> families = sft_families(seed=0, rows=2)
        >>> len(families), families["addition"][0]["completion"].strip().isdigit()
        (16, True)
    """
    fields = ("prompt", "completion")
    return {name: _generate(make, name, fields, seed, rows, split) for name, make in SFT.items()}


def preference_families(
    seed: int = 0, rows: int = 64, split: str = "train"
) -> dict[str, list[Row]]:
    """Make preference pairs: a right or fitting answer against a plausible worse one.

    Args:
        seed: same seed, same rows.
        rows: rows of each family; prompts are unique until a small family is used up.
        split: ``"train"`` or ``"eval"``. A prompt is in one split only, for every seed.

    Returns:
        ``{family: [{"prompt": ..., "chosen": ..., "rejected": ...}, ...]}``, chosen never equal
        to rejected.

    Raises:
        InputError: ``rows`` below 1 or an unknown split.

    Example:
        >>> row = preference_families(seed=0, rows=1)["right_case"][0]
        >>> row["chosen"].isupper(), row["rejected"].islower()
        (True, True)
    """
    fields = ("prompt", "chosen", "rejected")
    return {k: _generate(make, k, fields, seed, rows, split) for k, make in PREFERENCES.items()}
