"""Variants in which a student follows a frozen teacher that an earlier variant has trained."""


def toward_frozen(
    terms: dict, *, source: str = "teacher", cache: bool = False, adapters: dict | None = None
) -> dict:
    """Return a variant: the student's terms, and the frozen teacher of its seed (or the only one).

    Args:
        terms: of the student; all but "ce" are toward the teacher.
        source: the variant that trains the teacher.
        cache: compute the teacher's outputs once for each example.
        adapters: of the student.
    """
    frozen = {"terms": {"ce": None}, "from_variant": source, **({"cache": True} if cache else {})}
    student: dict = {
        "terms": {
            name: table if name == "ce" else {"toward": "teacher", **table}
            for name, table in terms.items()
        }
    }
    if adapters is not None:
        student["adapters"] = adapters
    return {"roles": {"teacher": frozen, "student": student}}
