"""The algebra against brute force: torch's own convolutions in double, at small odd sizes, borders included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from build_engine.fuse.algebra import Convolution, Deferred, Form, NotExact, Window

# Thousands of tiny convolutions: threads would only wait for each other.
torch.set_num_threads(1)

slow = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])


@st.composite
def windows(draw: st.DrawFn, *, padding: int = 2) -> Window:
    kernel = draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2)) if kernel > 1 else 1
    pads = draw(st.tuples(st.integers(0, padding), st.integers(0, padding)))
    return Window(kernel, draw(st.integers(1, 3)), dilation, *pads)


@st.composite
def convolutions(draw: st.DrawFn, c_in: int, c_out: int, *, padding: int = 2) -> Convolution:
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if c_in % g == 0 and c_out % g == 0]))
    pair = (draw(windows(padding=padding)), draw(windows(padding=padding)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = (c_out, c_in // groups, pair[0].kernel, pair[1].kernel)
    return Convolution(Deferred.of(rng.normal(size=shape)), pair, groups)


def run(conv: Convolution, x: torch.Tensor, bias: np.ndarray | None = None) -> torch.Tensor:
    height, width = conv.windows
    x = F.pad(x, [width.begin, width.end, height.begin, height.end])
    return F.conv2d(
        x,
        torch.from_numpy(conv.weight.value.copy()),
        None if bias is None else torch.from_numpy(bias),
        stride=[w.stride for w in conv.windows],
        dilation=[w.dilation for w in conv.windows],
        groups=conv.groups,
    )


def fits(conv: Convolution, *sizes: int) -> bool:
    return all(
        w.size(n) >= 1 and n + w.begin + w.end > w.dilation * (w.kernel - 1)
        for w, n in zip(conv.windows, sizes, strict=True)
    )


def image(channels: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(height * 8 + width).normal(size=(2, channels, height, width)))


def source_form(x: torch.Tensor, *, known: bool) -> Form:
    return Form.of("x", x.shape[1], tuple(x.shape[2:]) if known else (None, None))


sizes = st.integers(1, 7)


@slow
@given(convolutions(4, 4), convolutions(4, 2), sizes, sizes, st.booleans(), st.booleans())
def test_a_sequence_is_refused_or_equal(
    first: Convolution, second: Convolution, height: int, width: int, known: bool, with_bias: bool
) -> None:
    x = image(4, height, width)
    assume(fits(first, height, width))
    between = run(first, x)
    assume(fits(second, *between.shape[2:]))
    bias = np.random.default_rng(0).normal(size=4) if with_bias else None
    form = source_form(x, known=known).convolved(first.weight, first.windows, first.groups)
    if bias is not None:
        form = form.shifted(Deferred.of(bias))
        between = run(first, x, bias)
    try:
        form = form.convolved(second.weight, second.windows, second.groups)
    except NotExact:
        return
    expected = run(second, between)
    actual = run(form.terms["x"], x, form.bias_value())
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@st.composite
def aligned(draw: st.DrawFn) -> tuple[Convolution, Convolution]:
    """Two convolutions of which, most of the time, the second is as large as the first at every size."""
    one, two = draw(convolutions(4, 2, padding=4)), draw(convolutions(4, 2, padding=4))
    pairs = []
    for a, b in zip(one.windows, two.windows, strict=True):
        end = a.slack + b.last
        same = Window(b.kernel, a.stride, b.dilation, b.begin, end) if end >= 0 else b
        pairs.append(draw(st.sampled_from([same, same, same, b])))
    return one, Convolution(two.weight, tuple(pairs), two.groups)


@slow
@given(aligned(), sizes, sizes, st.booleans())
def test_a_sum_is_refused_or_equal(pair: tuple[Convolution, Convolution], height: int, width: int, known: bool) -> None:
    one, two = pair
    x = image(4, height, width)
    assume(fits(one, height, width) and fits(two, height, width))
    y1, y2 = run(one, x), run(two, x)
    assume(y1.shape == y2.shape)
    try:
        total = one.plus(two, (height, width) if known else (None, None))
    except NotExact:
        assert any(
            a.stride != b.stride or (not known and a.slack != b.slack)
            for a, b in zip(one.windows, two.windows, strict=True)
        )
        return
    torch.testing.assert_close(run(total, x), y1 + y2, rtol=1e-12, atol=1e-12)


@slow
@given(convolutions(4, 4), convolutions(4, 2), st.integers(4, 7), st.integers(4, 7))
def test_what_is_refused_is_different(first: Convolution, second: Convolution, height: int, width: int) -> None:
    """Refusing everything would pass the tests above: what is refused must really differ.

    Not at the smallest sizes, where dilated taps may jump over the whole image.
    """
    x = image(4, height, width)
    assume(fits(first, height, width))
    between = run(first, x)
    assume(fits(second, *between.shape[2:]))
    form = source_form(x, known=True).convolved(first.weight, first.windows, first.groups)
    try:
        form.convolved(second.weight, second.windows, second.groups)
    except NotExact:
        # The convolution that the rule would have written, had it not looked at the border.
        bare = tuple(Window(w.kernel, w.stride, w.dilation) for w in second.windows)
        naive = form.then(Convolution(second.weight, bare, second.groups)).terms["x"]
        padded = tuple(
            Window(w.kernel, w.stride, w.dilation, a.begin + a.stride * b.begin, a.end + a.stride * b.end)
            for w, a, b in zip(naive.windows, first.windows, second.windows, strict=True)
        )
        actual, expected = run(naive.with_windows(padded), x), run(second, between)
        assert actual.shape != expected.shape or not torch.allclose(actual, expected, rtol=1e-9, atol=1e-9)


@slow
@given(convolutions(4, 4), sizes, sizes)
def test_groups_to_dense_and_growing_change_nothing(conv: Convolution, height: int, width: int) -> None:
    x = image(4, height, width)
    assume(fits(conv, height, width))
    grown = tuple(
        Window(w.kernel + 2, w.stride, w.dilation, w.begin + w.dilation, w.end + w.dilation) for w in conv.windows
    )
    torch.testing.assert_close(run(conv.in_groups(1), x), run(conv, x))
    torch.testing.assert_close(run(conv.grown(grown), x), run(conv, x))
    torch.testing.assert_close(run(conv.grown(grown).trimmed(), x), run(conv, x))


def test_trimming_a_grown_kernel_gives_it_back() -> None:
    point = Convolution(Deferred.of(np.ones((2, 2, 1, 1))), (Window(), Window()))
    big = Window(5, 1, 1, 2, 2)
    assert point.grown((big, big)).trimmed().windows == point.windows


@pytest.mark.parametrize(("n", "refused"), [(5, False), (6, True)])
def test_padding_at_the_end_case_2_depends_on_the_size_under_a_stride(n: int, refused: bool) -> None:
    window = Window(kernel=3, stride=2, begin=1, end=1)
    assert window.size(n) == 3
    form = Form({"x": Convolution(Deferred.of(np.ones((1, 1, 3))), (window,))}, None, {"x": (n,)})
    if refused:
        with pytest.raises(NotExact, match="real pixels"):
            form.padded([(0, 1)])
    else:
        form.padded([(0, 1)])
