"""The chat model as a writer: distinct questions once, bad replies again and then listed, who wrote each caption, the same from a recording."""

import json
import socket
from collections import Counter
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip import llm_writer
from expblip.facs import AUS, NO_AU_CAPTION, parse, rule_caption
from expblip.fusion import training_captions
from expblip.llm_writer import LLMWriter, PriceFirst, Unanswered, acceptance, facts, figures, rejected, stage_writer, usage
from expblip.prices import Price
from expblip.prompts import AU_PROMPT, FUSION_PROMPT, Template
from expblip.records import check_captions, check_records
from expblip.replies import Failure, MissingReplies, Replay, Reply, ReplyStore, Stopped
from expblip.synthesis import GrammarWriter, caption_table, concatenate, dice, write_actions, write_fusions, writer

calm = settings(deadline=None)  # a busy machine is no fault

GRAMMAR = GrammarWriter()


def asked_aus(question) -> list[int]:
    "The AUs that a question is about."
    last = question.messages[-1][1].rsplit("which contains ", 1)[1].split(" in 1-9", 1)[0]
    return [int(name.removeprefix("AU")) for name in last.split(", ")]


def asked_sentences(question) -> tuple[str, str]:
    "The two sentences that a question wants fused."
    lines = question.messages[-1][1].splitlines()[-2:]
    return tuple(line.split(": ", 1)[1].strip('"') for line in lines)


class Fake:
    "Answers as told; remembers every question. `say(question)` gives a text, (text, finish), or a Failure's reason as an exception."

    def __init__(self, say=None, store=None):
        self.say, self.store, self.questions = say or self.well, store, []

    @staticmethod
    def well(question):
        chance = dice(f"{question.body()['seed']}")
        if "Emotion Sentence" in question.messages[-1][1]:
            return GRAMMAR.fuse(*asked_sentences(question), chance)
        return GRAMMAR.au_caption(asked_aus(question), chance)

    def ask(self, questions):
        self.questions += questions
        return [self.one(question) for question in questions]

    def one(self, question):
        try:
            said = self.say(question)
        except TimeoutError as error:
            return Failure(question.key, str(error), 3, "time-out")
        text, finish = said if isinstance(said, tuple) else (said, "stop")
        reply = Reply(question.key, text, question.model, "fake-0925", "2026-01-02T03:04:05Z", finish, 100, 20, "localhost")
        return reply if self.store is None else self.store.add(question, reply)


def table(faces, emotions=None):
    "Records of these AU sets (None: not annotated)."
    rows = [{"id": f"r{i}", "image": "x.png", "dataset": "d", "split": "train", "au_present": aus, "au_absent": None if aus is None else [28],
             "emotions": None if emotions is None else emotions[i]} for i, aus in enumerate(faces)]
    return check_records(pd.DataFrame(rows))


def own(captions):
    "The writer's captions of a table, by record."
    return captions[(captions["aspect"] == "au") & (captions["writer"] == "llm")].set_index("record")


# ---------------------------------------------------------------- asked once

@calm
@given(st.lists(st.sets(st.sampled_from(list(AUS)[:5]), max_size=2), min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 99))
def test_distinct_sets_are_asked_once_for_each_variant(faces, variants, seed):
    fake = Fake()
    author = LLMWriter(fake, "m", variants)
    written = write_actions(author, [sorted(aus) for aus in faces], [f"{seed}/{i}" for i in range(len(faces))])
    shown = {frozenset(aus) for aus in faces if aus}
    keys = [question.key for question in fake.questions]
    assert len(keys) == len(set(keys)) <= variants * len(shown)
    assert {frozenset(asked_aus(question)) for question in fake.questions} == shown
    for aus, one in zip(faces, written):
        assert parse(one.text).aus == aus and one.writer == ("llm" if aus else "rule")


def test_faces_without_aus_are_never_sent():
    fake = Fake()
    captions = caption_table(table([[], [12], []]), LLMWriter(fake, "m"))
    assert len(fake.questions) == 1
    calm = captions[captions["text"] == NO_AU_CAPTION]
    assert calm["record"].tolist() == ["r0", "r2"] and set(calm["writer"]) == {"rule"}
    assert "without AUs" in json.loads(calm["provenance"].iloc[0])["fixed"]


def test_order_and_notation_of_aus_do_not_matter():
    fake = Fake()
    write_actions(LLMWriter(fake, "m", 1), [[12, 4], [4, 12], ("AU4", "12")], "abc")
    assert len(fake.questions) == 1


def test_variants_are_used_evenly_and_by_the_seed():
    captions = own(caption_table(table([[12, 25]] * 900), LLMWriter(Fake(), "m", 3)))
    counts = Counter(json.loads(told)["variant"] for told in captions["provenance"])
    assert set(counts) == {0, 1, 2} and min(counts.values()) > 250
    again = own(caption_table(table([[12, 25]] * 900), LLMWriter(Fake(), "m", 3), 1))
    assert captions["text"].ne(again["text"]).mean() > .3


def test_a_captions_chance_is_its_own():
    records = table([[12, 25], [4], [1, 2], [12, 25]])
    whole, part = (own(caption_table(some, LLMWriter(Fake(), "m")))["text"] for some in (records, records.iloc[[3, 1]]))
    assert part.to_dict() == whole[["r3", "r1"]].to_dict()


def test_another_seed_pays_only_for_variants_not_yet_used():
    fake = Fake()
    for seed in range(20):
        caption_table(table([[12]] * 5), LLMWriter(fake, "m", 2), seed)
    assert len({question.key for question in fake.questions}) == 2


def test_the_same_text_for_the_same_labels_whatever_the_writer():
    "Rule captions and emotion captions do not depend on who writes the others."
    records = table([[12], None, [4, 7]], [None, ["fear"], ["anger"]])
    first, second = (caption_table(records, one) for one in (LLMWriter(Fake(), "m"), writer("grammar")))
    same = [part[part["writer"] == "rule"].reset_index(drop=True) for part in (first, second)]
    pd.testing.assert_frame_equal(*same)
    assert first["id"].str.replace("llm", "grammar").tolist() == second["id"].tolist()


# ---------------------------------------------------------------- rejected and asked again

BAD = {"empty": "...", "refusal": "I'm sorry, I cannot.", "says AU": "AU12 is there.", "names an emotion": "A happy mouth.",
       "cut off": ("The lip corners are", "length")}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_reply_is_asked_again_with_another_key(reason):
    fake = Fake(lambda question: BAD[reason] if not question.attempt else Fake.well(question))
    author = LLMWriter(fake, "m", 1)
    captions = caption_table(table([[12]] * 5), author)
    assert [question.attempt for question in fake.questions] == [0, 1] and len({question.key for question in fake.questions}) == 2
    assert fake.questions[0].body()["seed"] != fake.questions[1].body()["seed"]
    told = json.loads(own(captions)["provenance"].iloc[0])
    assert (told["attempt"], told["key"]) == (1, fake.questions[1].key)
    listed = rejected(author)
    assert listed[["reason", "then", "images", "about"]].values.tolist() == [[reason, "asked again", 5, "AU12"]]


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.parametrize("fallback, text", [("grammar", "drawn"), ("rule", None), ("leave", None)])
def test_what_stays_bad_falls_back_and_is_listed(reason, fallback, text):
    fake = Fake(lambda question: BAD[reason] if 12 in asked_aus(question) else Fake.well(question))
    author = LLMWriter(fake, "m", 1, attempts=3, fallback=fallback)
    captions = check_captions(caption_table(table([[12], [4]]), author))
    assert Counter(asked_aus(question)[0] for question in fake.questions) == {12: 3, 4: 1}
    mine = captions[captions["record"] == "r0"]
    assert mine["writer"].tolist() == ["rule"] + ["grammar"] * (fallback == "grammar")
    if text:
        alone = caption_table(table([[12], [4]]), writer("grammar"))
        assert mine["text"].iloc[-1] == alone[alone["record"] == "r0"]["text"].iloc[-1]
        told = json.loads(mine["provenance"].iloc[-1])
        assert (told["instead_of"], told["reason"], told["writer"], told["attempt"]) == ("llm", reason, "grammar", 2)
    assert rejected(author)["then"].tolist() == ["asked again", "asked again", fallback]
    assert rejected(author)["text"].iloc[-1] == llm_writer.tidy(BAD[reason] if isinstance(BAD[reason], str) else BAD[reason][0])


def test_a_left_out_caption_is_no_caption():
    author = LLMWriter(Fake(lambda question: "AU12."), "m", fallback="leave")
    assert author.au_caption([12], dice(0)) is None
    with pytest.raises(ValueError, match="no fused caption was accepted .says AU."):
        author.fuse("a dropped jaw", "The face shows fear.", dice(0))


@pytest.mark.parametrize("extra, reason", [(" and a dropped jaw", "adds"), ("", "drops")])
def test_added_and_dropped_aus_are_measured_and_reject_only_on_demand(extra, reason):
    text = "The lip corners are pulled up" + extra + "."
    wanted = [12] if extra else [12, 26]
    loose, strict = LLMWriter(Fake(lambda question: text), "m", 1), LLMWriter(Fake(lambda question: text), "m", 1, strict=True, attempts=2)
    assert loose.au_caption(wanted, dice(0)) == text
    row = acceptance(loose).iloc[0]
    assert (row["verdict"], row[reason]) == ("accepted", 1)
    assert parse(strict.au_caption(wanted, dice(0))).aus == set(wanted)
    assert rejected(strict)["reason"].tolist() == [reason] * 2


def test_the_reply_is_tidied_and_the_record_kept(tmp_path):
    store = ReplyStore(tmp_path)
    raw = 'Answer: "The lip corners\nare pulled up."'
    author = LLMWriter(Fake(lambda question: raw, store), "m", 1)
    assert author.au_caption([12], dice(0)) == "The lip corners are pulled up."
    assert store.get(author.asked[0].key).text == raw


# ---------------------------------------------------------------- no reply

def silent(question):
    if 4 in asked_aus(question):
        raise TimeoutError("no answer in 60 s")
    return Fake.well(question)


def test_questions_without_a_reply_stop_the_stage():
    fake = Fake(silent)
    with pytest.raises(Unanswered, match="1 of 2 questions got no reply, the first because: no answer in 60 s"):
        caption_table(table([[12], [4]]), LLMWriter(fake, "m", 1))
    assert len(fake.questions) == 2  # not asked again: the client has tried already


def test_or_fall_back_where_the_user_says_so():
    author = LLMWriter(Fake(silent), "m", 1, unanswered="fallback")
    captions = caption_table(table([[12], [4]]), author)
    assert captions["writer"].tolist() == ["rule", "llm", "rule", "grammar"]
    assert rejected(author)[["reason", "text", "model"]].values.tolist() == [["no reply", "no answer in 60 s", ""]]
    assert set(acceptance(author)["verdict"]) == {"accepted", "no reply"}


def test_what_stops_the_client_stops_the_writer():
    class Broke:
        def ask(self, questions):
            raise Stopped("the budget is used up", "budget")
    with pytest.raises(Stopped, match="budget"):
        LLMWriter(Broke(), "m").au_caption([4], dice(0))


# ---------------------------------------------------------------- who wrote it

COMPLETE = {"writer", "seed", "model", "asked", "when", "template", "temperature", "reply_seed", "variant", "attempt", "key"}


def test_provenance_is_complete_and_true(tmp_path):
    store = ReplyStore(tmp_path)
    author = LLMWriter(Fake(store=store), "fake", 2, temperature=.7)
    captions = own(caption_table(table([[12], [12, 25], [4]] * 4), author, 5))
    for text, told in zip(captions["text"], map(json.loads, captions["provenance"])):
        assert set(told) == COMPLETE
        reply, question = store.get(told["key"]), store.question(told["key"])
        assert (reply.text, reply.model, reply.when, reply.asked_model) == (text, told["model"], told["when"], told["asked"])
        assert dict(question.params)["temperature"] == told["temperature"] == .7 and question.body()["seed"] == told["reply_seed"]
        assert (question.variant, question.attempt) == (told["variant"], told["attempt"]) and told["seed"] == 5
        assert told["template"] == AU_PROMPT.label and question.messages[0][1].endswith("Answer:")


def test_another_template_is_another_hash():
    mine = Template("mine", "Which contains {aus} in 1-9 words?")
    author = LLMWriter(Fake(lambda question: "Lips move up."), "m", au_template=mine)
    told = json.loads(own(caption_table(table([[12]]), author))["provenance"].item())
    assert told["template"] == mine.label != AU_PROMPT.label and author.asked[0].job.prompt == "Which contains AU12 in 1-9 words?"


def test_facts_for_the_manifest():
    author = LLMWriter(Fake(), "fake", 2, temperature=.5)
    write_actions(author, [[12], [4]], "ab")
    told = facts(author)
    assert json.loads(json.dumps(told)) == told
    assert (told["model"], told["answered"], told["temperature"], told["seed"]) == ("fake", {"fake-0925": 2}, .5, 0)
    assert told["templates"] == [AU_PROMPT.label] and told["first"] == told["last"] == "2026-01-02T03:04:05Z" and told["servers"] == ["localhost"]


# ---------------------------------------------------------------- counted and priced

def test_usage_counts_images_prompts_questions_and_tokens(tmp_path):
    store = ReplyStore(tmp_path)
    first = LLMWriter(Fake(lambda question: Fake.well(question) if question.attempt else "AU", store), "m", 1, price=Price("m", 1e6, 1e7))
    records = table([[12]] * 5 + [[4]] * 2 + [[]])
    caption_table(records, first)
    row = usage(first).iloc[0].to_dict()
    assert {name: row[name] for name in ("images", "prompts", "questions", "replies", "bought")} == {
        "images": 7, "prompts": 2, "questions": 4, "replies": 4, "bought": 4}
    assert (row["prompt_tokens"], row["completion_tokens"], row["dollars"], row["bought_dollars"]) == (400, 80, 1200, 1200)
    second = LLMWriter(Replay(store), "m", 1, price=first.price)
    caption_table(records, second)
    row = usage(second).iloc[0]
    assert (row["replies"], row["bought"], row["dollars"], row["bought_dollars"]) == (4, 0, 1200, 0)
    verdicts = acceptance(first).set_index("verdict")
    assert verdicts["share"].to_dict() == {"accepted": .5, "says AU": .5} and verdicts["first"].to_dict() == {"accepted": 0, "says AU": 1}
    named = {entry["name"]: entry["value"] for entry in figures(first, "s/llm")}
    assert named["s/llm/images"] == 7 and named["s/llm/prompts"] == 2 and named["s/llm/says_AU"] == .5
    assert named["s/llm/dollars"] == 1200 and "dollars" not in usage(LLMWriter(Fake(), "m"))


def test_the_price_comes_first_and_a_dry_run_asks_nobody(tmp_path, capsys):
    fake, store, cost = Fake(), ReplyStore(tmp_path), Price("m", 1, 2)
    plan = PriceFirst(None, cost, store)
    with pytest.raises(Stopped, match="nobody was asked"):
        caption_table(table([[12]] * 3 + [[4]]), LLMWriter(plan, "m", 1))
    assert len(plan.questions) == 2 and "m: 2 questions, 2 distinct, 0 in the store, 2 calls" in capsys.readouterr().out
    caption_table(table([[12]] * 3 + [[4]]), LLMWriter(PriceFirst(fake, cost, store), "m", 1))
    assert [question.key for question in fake.questions] == [question.key for question in plan.questions]


def test_a_batch_is_bought_once_and_its_budget_is_for_all_rounds(tmp_path, capsys):
    "A batch client answers from the store and keeps a budget for each list: what a round spent is not there for the next."
    class Batch(Fake):
        budgets: list[float] = []
        budget = 1000.0

        def ask(self, questions):
            self.budgets.append(self.budget)
            return [self.store.get(reply.key) for reply in super().ask(questions)]
    store = ReplyStore(tmp_path)
    client = Batch(lambda question: Fake.well(question) if question.attempt else "AU", store)
    cost = Price("m", 1e6, 1e7, batch=.5)
    author = LLMWriter(PriceFirst(client, cost, store, batch=True), "m", 1)
    author.au_caption([4], dice(0))
    assert client.budgets == [1000, 850] and client.budget == 700  # half of 100 + 200 dollars, twice
    assert usage(author)["bought"].item() == 2
    again = LLMWriter(PriceFirst(client, cost, store, batch=True), "m", 1)
    again.au_caption([4], dice(0))
    assert client.budget == 700 and usage(again)["bought"].item() == 0


# ---------------------------------------------------------------- recorded and replayed

def test_a_recording_replays_to_the_same_bytes_without_a_socket(tmp_path, monkeypatch):
    store = ReplyStore(tmp_path / "replies")
    fake = Fake(lambda question: "AU" if len(asked_aus(question)) == 1 and question.attempt < 2 else Fake.well(question), store)
    records = table([sorted(aus) for aus in ({12}, {12, 25}, {4}, {1, 2, 5}, set())] * 6)
    first = caption_table(records, LLMWriter(fake, "fake"), 3)
    monkeypatch.setattr(socket, "socket", lambda *args, **more: pytest.fail("a socket was opened"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    cfg = SimpleNamespace(writer="llm", llm_model="fake", base_url="", replies="replies", variants=3, temperature=1.0, attempts=3, fallback="grammar",
                          unanswered="stop", strict_aus=False, reply_tokens=256, limit_name="max_tokens", budget=0.0,
                          price="", batch_api=False, dry_run=False, out="outputs/x")
    offline = stage_writer(cfg, tmp_path)
    again = caption_table(records, offline, 3)
    pd.testing.assert_frame_equal(first, again)
    assert usage(offline)["bought"].item() == 0
    cfg.temperature = .5
    with pytest.raises(MissingReplies, match="have no recorded reply"):
        caption_table(records, stage_writer(cfg, tmp_path), 3)


def test_the_other_writers_come_from_the_same_parameter():
    assert [stage_writer(SimpleNamespace(writer=name)).name for name in ("rule", "grammar")] == ["rule", "grammar"]


@pytest.mark.parametrize("settings, words", [
    ({"fallback": "gpt"}, "expected one of grammar, rule, leave"), ({"unanswered": "no"}, "expected one of stop, fallback"),
    ({"variants": 0}, "at least 1"), ({"attempts": 0}, "at least 1"),
    ({"temperature": 0}, "3 times the same reply"), ({"limit_name": "n"}, "max_completion_tokens")])
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ValueError, match=words):
        LLMWriter(Fake(), "m", **settings)


# ---------------------------------------------------------------- fusion

LABELLED = table([[12, 25], [4, 7], [], None, [9], [12, 25]], [["happiness"], ["anger"], ["neutrality"], ["fear"], None, ["happiness"]])


def fused(author, captions=None, records=LABELLED, **more):
    "Exp's training captions of the records with both labels."
    both = records[[isinstance(aus, list) and named is not None for aus, named in zip(records["au_present"], records["emotions"])]]
    captions = caption_table(both, author) if captions is None else captions
    ready, dropped = training_captions("exp", both, captions, writer=author, **more)
    return check_captions(ready, both).set_index("record"), dropped


def test_exp_is_fused_by_the_model_once_for_each_pair():
    fake = Fake()
    author = LLMWriter(fake, "fake", 1)
    ready, dropped = fused(author)
    assert len(dropped) == 0 and set(ready["writer"]) == {"llm"} and set(ready["use"]) == {"fused"}
    pairs = [asked_sentences(question) for question in fake.questions if "Emotion Sentence" in question.messages[-1][1]]
    assert len(pairs) == len(set(pairs)) == 3  # r0 and r5 have the same two sentences
    assert (NO_AU_CAPTION, "The face shows neutrality.") in pairs
    assert parse(ready.loc["r1", "text"]).aus == {4, 7} and parse(ready.loc["r1", "text"]).emotions == {"anger"}
    for told in map(json.loads, ready["provenance"]):
        assert set(told) == COMPLETE - {"writer"} | {"au", "emotion"} and told["template"] == FUSION_PROMPT.label


@pytest.mark.parametrize("reason", ["empty", "refusal", "says AU", "cut off"])
@pytest.mark.parametrize("fallback", ["grammar", "rule", "leave"])
def test_a_bad_fusion_falls_back_and_is_listed(reason, fallback):
    def say(question):
        return BAD[reason] if "Emotion Sentence" in question.messages[-1][1] and "anger" in question.messages[-1][1] else Fake.well(question)
    author = LLMWriter(Fake(say), "m", 1, attempts=2, fallback=fallback)
    ready, dropped = fused(author)
    assert rejected(author)["then"].tolist() == ["asked again", fallback] and set(ready.drop("r1", errors="ignore")["writer"]) == {"llm"}
    if fallback == "leave":
        assert dropped[["record", "reason"]].values.tolist() == [["r1", reason]] and "r1" not in ready.index
    else:
        assert not len(dropped) and ready.loc["r1", "writer"] == fallback
        text = ready.loc["r1", "text"]
        assert (parse(text).aus, parse(text).emotions) == ({4, 7}, {"anger"})
        assert json.loads(ready.loc["r1", "provenance"])["reason"] == reason


def test_an_emotion_in_a_fused_text_is_what_was_asked_for():
    one = write_fusions(LLMWriter(Fake(), "m", 1), [("a dropped jaw", "The face shows fear.")], "a")[0]
    assert one.writer == "llm" and parse(one.text).emotions == {"fear"}


def test_a_fused_text_with_one_aspect_is_measured_and_rejects_only_on_demand():
    def say(question): return "The jaw is dropped."
    pair = [("The jaw is dropped.", "The face shows fear.")]
    loose, strict = LLMWriter(Fake(say), "m", 1), LLMWriter(Fake(say), "m", 1, strict=True, attempts=1)
    assert write_fusions(loose, pair, "a")[0].text == "The jaw is dropped." and acceptance(loose)["drops"].item() == 1
    one = write_fusions(strict, pair, "a")[0]
    assert (one.writer, one.origin["reason"]) == ("grammar", "drops") and parse(one.text).emotions == {"fear"}


def test_the_grammar_cannot_stand_in_for_what_it_cannot_read():
    author = LLMWriter(Fake(lambda question: "AU"), "m", 1, attempts=1)
    one = write_fusions(author, [("The mouth does something odd.", "The face shows fear.")], "a")[0]
    assert one.text is None and one.origin["reason"].startswith("says AU; cannot fuse: no facial action is recognised")


@pytest.mark.parametrize("fallback", ["grammar", "rule", "leave"])
def test_fusion_takes_what_stood_in_for_an_action_caption(fallback):
    def say(question): return "AU" if "Emotion Sentence" not in question.messages[-1][1] and 4 in asked_aus(question) else Fake.well(question)
    fake = Fake(say)
    author = LLMWriter(fake, "m", 1, attempts=1, fallback=fallback)
    ready, dropped = fused(author)
    if fallback == "leave":
        assert dropped[["record", "reason"]].values.tolist() == [["r1", "no AU caption by 'llm' was accepted"]]
    else:
        assert ready.loc["r1", "writer"] == "llm" and json.loads(ready.loc["r1", "provenance"])["au"] == f"r1/au/{fallback}"
        sentences = [asked_sentences(question)[0] for question in fake.questions if "Emotion Sentence" in question.messages[-1][1]]
        assert (rule_caption([4, 7]) in sentences) == (fallback == "rule")


def test_captions_of_another_writer_are_not_taken_for_its_own():
    with pytest.raises(ValueError, match="no au caption by writer 'llm'; run synthesize"):
        fused(LLMWriter(Fake(), "m"), caption_table(LABELLED, writer("grammar")))


def test_mix_and_cat_ask_nobody():
    fake = Fake()
    author = LLMWriter(fake, "m")
    captions = caption_table(LABELLED.iloc[[0, 1]], author)
    before = len(fake.questions)
    for model in ("mix", "cat"):
        ready, _ = training_captions(model, LABELLED.iloc[[0, 1]], captions, writer=author)
        assert set(ready["writer"]) == {"rule"}
    same, _ = training_captions("cat", LABELLED.iloc[[0, 1]], captions, writer=author, same_au_captions=True)
    assert len(fake.questions) == before
    assert same["text"].iloc[0] == concatenate(own(captions).loc["r0", "text"], "The face shows happiness.")


def test_mix_with_the_models_captions_leaves_out_what_was_left_out():
    author = LLMWriter(Fake(lambda question: "AU" if 4 in asked_aus(question) else Fake.well(question)), "m", attempts=1, fallback="leave")
    captions = caption_table(LABELLED.iloc[[0, 1]], author)
    ready, dropped = training_captions("mix", LABELLED.iloc[[0, 1]], captions, writer=author, same_au_captions=True)
    assert set(ready["record"]) == {"r0"} and dropped["record"].tolist() == ["r1"]
