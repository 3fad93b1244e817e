"""A model that nobody has any more is freed, and with it everything that was compiled for it."""

import gc
import weakref

import numpy as np
import specimens

import pixel_cnn_pp as pcnn
from pixel_cnn_pp import sampling


def compiled():
    """Numbers of TensorFlow's functions and graphs that live in this process."""
    gc.collect()  # frees a model, and what only the model has kept
    gc.collect()  # frees that, which has cycles too
    names = ("ConcreteFunction", "AtomicFunction", "FuncGraph", "WhileBodyFuncGraph")
    found = [type(each).__name__ for each in gc.get_objects()]
    return {name: found.count(name) for name in names}


def test_what_was_compiled_for_a_model_is_freed_with_it(monkeypatch):
    compile_function = sampling.draw.compile_function
    monkeypatch.setattr(sampling.draw, "compile_function", lambda f, *_: compile_function(f, False))
    # Its convolutions have gradients of their own, and its blocks compute theirs again.
    model = specimens.fresh(specimens.SPECIMENS["one_component"], recompute=True)
    before = compiled()
    labels = [2, 0]
    images = pcnn.sample(model, 2, labels)
    pcnn.sample(model, 2, labels)
    data = pcnn.compress(model, images, labels)
    model.predict_on_batch((images, np.array(labels)))
    model.compile("sgd")
    model.evaluate(images, np.array(labels), verbose=0)
    while_it_lives = compiled()
    assert all(while_it_lives[name] > before[name] for name in before)
    kept = [weakref.ref(each) for each in (model, *model.weights)]
    del model
    assert compiled() == before
    assert [each for each in kept if each() is not None] == []
    assert len(data) > 0
