"""Names of runs: short, and different for different runs."""

from evaluation.run_names import Parts, fit_name, name_beside, tell_apart


def parts(path: str) -> Parts:
    return ("/", *path.strip("/").split("/"))


def test_the_last_folder_names_a_run_if_that_is_enough() -> None:
    assert tell_apart([parts("/out/b0"), parts("/out/b1"), parts("/other/f0")]) == ["b0", "b1", "f0"]


def test_as_much_of_the_path_as_tells_runs_apart() -> None:
    runs = ["/out/b/seed0", "/out/b/seed1", "/out/f/seed0", "/old/f/seed0"]
    assert tell_apart(list(map(parts, runs))) == ["b/seed0", "seed1", "out/f/seed0", "old/f/seed0"]
    assert tell_apart([parts("/seed0"), parts("/out/seed0")]) == ["/seed0", "out/seed0"]
    assert tell_apart([parts("/out/b0"), parts("/out/b0")]) == ["b0 1", "b0 2"]


def test_comparisons_with_runs_of_one_name_have_different_folders() -> None:
    ours = parts("/out/b/seed0")
    others = ["/out/b/seed1", "/out/f/seed0", "/out/g/seed0", "/old/f/seed0", "/out/seed0", "/out/b/f/seed0"]
    names = [name_beside(ours, parts(other)) for other in others]
    assert names == ["seed1", "out,f,seed0", "out,g,seed0", "old,f,seed0", "out,seed0", "f,seed0"]
    assert name_beside(ours, ("owner", "name")) == "owner,name"  # on the hub


def test_a_long_name_still_fits_and_differs() -> None:
    long = ["run" * 100 + end for end in ("a", "b")]
    assert len({fit_name(name) for name in long}) == 2 and all(len(fit_name(name)) < 255 for name in long)
    assert fit_name("against_f0") == "against_f0"
