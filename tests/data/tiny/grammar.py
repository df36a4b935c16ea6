# SPDX-License-Identifier: Apache-2.0
"""Two ways of telling the same small story.

A story is drawn once, as facts (who, did what, to what, where, when, how many), and then told
either plainly (style 1) or archaically (style 2). The base models read style 1, the adapters style
2, so what an adapter has learnt is a known change of wording over an unchanged world: perplexity
on style 2 must fall, and generated text must show it.

Style 1 holds a little of style 2 (see `reading`): glossary lines and, marked as from an old book,
whole stories. So the base knows the wording without using it of its own accord, and an adapter
need only change which one is the default. Without that, the output rows of the words that only
style 2 has would never be trained, and an adapter that leaves the embeddings alone would have to
change the weights by about their own size, where real adapters change them by a tenth or less.

All randomness comes from the random.Random that the caller hands in.
"""

PEOPLE = ["farmer", "king", "miller", "sailor", "baker", "queen", "smith", "shepherd"]
NAMES = ["Anna", "Zoë", "José", "Tom", "Åsa", "Peter"]
BEASTS = ["dog", "cat", "horse", "fox", "owl", "goat"]
THINGS = ["lamp", "key", "boat", "ring", "book", "cart", "bell", "coat"]
GOODS = ["coins", "apples", "eggs", "loaves", "sheep"]
ADJECTIVES = ["small", "old", "red", "quiet", "brave", "tired", "green", "poor"]

# plain word or phrase -> archaic one
VERBS = {"saw": "beheld", "found": "came upon", "lost": "forsook", "carried": "bore",
         "wanted": "craved", "took": "seized", "hid": "did conceal", "sold": "did barter"}
PLACES = {"near": "hard by", "behind": "abaft", "under": "beneath", "in front of": "afore"}
SPOTS = ["mill", "river", "bridge", "church", "forest", "harbour", "market", "well"]
TIMES = {"in the morning": "at morn", "in the evening": "at eventide",
         "at night": "in the dark of night", "yesterday": "yestereve",
         "today": "upon this day"}
FEELINGS = {"happy": "merry", "sad": "woeful", "angry": "wroth", "afraid": "sore afeared"}
ENDINGS = {"went home": "hied homeward", "went away": "departed hence",
           "said nothing": "spake no word", "slept well": "slumbered soundly"}
GIVE = {"gave": "bestowed", "paid": "yielded"}


def roman(n):
    """n in lower-case roman numerals, 1 <= n < 40."""
    return "x" * (n // 10) + ["", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"][n % 10]


def noun(rng):
    """(adjective or "", noun) of something that can act or be acted on."""
    pool = rng.choice([PEOPLE, BEASTS, THINGS])
    return (rng.choice(ADJECTIVES) if rng.random() < 0.5 else "", rng.choice(pool))


def actor(rng):
    """The one who acts: a name, or a noun with its article to come."""
    if rng.random() < 0.3:
        return rng.choice(NAMES)
    return (rng.choice(ADJECTIVES) if rng.random() < 0.5 else "", rng.choice(PEOPLE + BEASTS))


def draw(rng):
    """The facts of one story."""
    return {
        "actor": actor(rng), "verb": rng.choice(list(VERBS)), "object": noun(rng),
        "near": rng.choice(list(PLACES)), "spot": rng.choice(SPOTS),
        "time": rng.choice(list(TIMES)), "time_first": rng.random() < 0.4,
        "feeling": rng.choice(list(FEELINGS)), "ending": rng.choice(list(ENDINGS)),
        "give": rng.choice(list(GIVE)), "count": rng.randrange(2, 40),
        "goods": rng.choice(GOODS), "receiver": ("", rng.choice(PEOPLE)),
        "shape": rng.choice(["deed", "deed mood", "deed gift", "deed gift mood"]),
    }


def upper(text):
    return text[0].upper() + text[1:]


def plain_noun(n, article):
    if isinstance(n, str):
        return n
    words = " ".join(w for w in n if w)
    if article == "a" and words[0] in "aeiou":
        article = "an"
    return f"{article} {words}"


def archaic_noun(n, article):
    if isinstance(n, str):
        return f"good {n}"
    if article == "a" and n[1][0] in "aeiou":
        article = "an"
    return f"{article} {n[1]}" + (f" so {n[0]}" if n[0] else "")


def plain(f):
    """Style 1."""
    who = plain_noun(f["actor"], "the")
    where = f"{f['near']} the {f['spot']}"
    deed = f"{who} {f['verb']} {plain_noun(f['object'], 'a')} {where}"
    deed = f"{f['time']} {deed}" if f["time_first"] else f"{deed} {f['time']}"
    out = [upper(deed) + "."]
    if "gift" in f["shape"]:
        out.append(upper(f"{plain_noun(f['receiver'], 'the')} {f['give']} {who} "
                         f"{f['count']} {f['goods']}."))
    if "mood" in f["shape"]:
        out.append(upper(f"{who} was {f['feeling']} and {f['ending']}."))
    return " ".join(out)


def archaic(f):
    """Style 2."""
    who = archaic_noun(f["actor"], "the")
    where = f"{PLACES[f['near']]} yon {f['spot']}"
    deed = f"{who} {VERBS[f['verb']]} {archaic_noun(f['object'], 'a')} {where}"
    time = TIMES[f["time"]]
    deed = f"{time} {deed}" if f["time_first"] else f"{deed} {time}"
    out = [upper(deed) + ";"]
    if "gift" in f["shape"]:
        out.append(f"{archaic_noun(f['receiver'], 'the')} {GIVE[f['give']]} upon {who} "
                   f"{f['goods']} {roman(f['count'])};")
    if "mood" in f["shape"]:
        out.append(f"right {FEELINGS[f['feeling']]} was {who}, and {ENDINGS[f['ending']]};")
    return " ".join(out) + " verily!"


def glossary(rng):
    """A line about style 2: a word, a number, or a phrase of a few words."""
    kind = rng.random()
    if kind < 0.3:
        table = rng.choice([VERBS, PLACES, TIMES, FEELINGS, ENDINGS, GIVE])
        word = rng.choice(list(table))
        return f"The old word for {word} is {table[word]}."
    if kind < 0.4:
        n = rng.randrange(2, 40)
        return f"The old sign for {n} is {roman(n)}."
    if kind < 0.5:
        words = rng.sample(["yon", "so", "right", "verily!", "good", "upon"], 3)
        return f"Old words are {', '.join(words)}."
    f = draw(rng)
    phrase = rng.choice([
        archaic_noun(f["object"], "a"), archaic_noun(f["actor"], "the"),
        f"{VERBS[f['verb']]} {archaic_noun(f['object'], 'a')}",
        f"{PLACES[f['near']]} yon {f['spot']} {TIMES[f['time']]};",
        f"{f['goods']} {roman(f['count'])};",
        f"{GIVE[f['give']]} upon {archaic_noun(f['actor'], 'the')}",
        f"{archaic_noun(f['actor'], 'the')}, and {ENDINGS[f['ending']]}; verily!"])
    return f"An old book says: {phrase}"


def stories(rng, count, avoid=()):
    """The facts of count distinct stories, none of which tells the same as one of `avoid`."""
    seen, out = {plain(f) for f in avoid}, []
    while len(out) < count:
        f = draw(rng)
        if plain(f) not in seen:
            seen.add(plain(f))
            out.append(f)
    return out


def reading(rng, base, old):
    """What a base model reads: the stories `base` plainly, an eighth as many glossary lines, and
    the stories `old` archaically, marked."""
    return ([plain(f) for f in base] + [glossary(rng) for _ in base[::8]] +
            [f"An old book says: {archaic(f)}" for f in old])
