from memoroids._util.messages import suggest


def test_suggestions_name_the_nearest_or_else_all():
    assert suggest("LRUU", ["lru", "gru"]) == "; did you mean lru?"
    assert suggest("zzz", ["lru", "gru"]) == "; there are lru, gru"
