from __future__ import annotations

from clip_app.results import AnalysisResult, GroupResult, ImageInfo, LabelScore, ModelInfo, Timings


def test_a_result_comes_back_from_json_as_it_was() -> None:
    result = AnalysisResult(
        model=ModelInfo(id="bundled", revision="1", engine="torch", precision="float32", bundled=True),
        image=ImageInfo(name="猫.png", width=30, height=20),
        groups=[GroupResult(name="a", no_match=0.5, labels=[LabelScore(label="b", confidence=0.5, similarity=0.1)])],
        timings_ms=Timings(decode=1.5),
    )
    assert AnalysisResult.model_validate_json(result.model_dump_json()) == result


def test_a_stage_that_did_not_happen_took_no_time() -> None:
    assert set(Timings().model_dump().values()) == {0}
    assert set(Timings().model_dump()) == {"decode", "preprocess", "queue", "encode", "score", "total"}


def test_what_a_number_means_is_told_where_the_api_is_described() -> None:
    schema = AnalysisResult.model_json_schema()["$defs"]
    assert "not a probability" in schema["LabelScore"]["properties"]["confidence"]["description"]
    assert "name nothing" in schema["GroupResult"]["properties"]["no_match"]["description"]
