"""Views of the images of a data set, for the stages of a chain. They are computed batch by batch.

Training first cuts and mirrors whole images, and then computes their views. So the view of a
mirrored image is that of the image that a user would give.
"""

import numpy as np

from pixel_cnn_pp import views


class ViewedArray:
    """Views of an array of images. Rows are computed when they are read.

    Attributes:
      shape: (N, h, w, c).
      dtype: NumPy's dtype of the levels.
    """

    def __init__(self, images, view, num_levels):
        """Keeps the arguments.

        Args:
          images: Integer array [N, H, W, C], which may be memory-mapped.
          view: `views.View`.
          num_levels: L of the images.

        Raises:
          ValueError: If there is no such view of such images.
        """
        self._images, self._view, self._num_levels = images, view, num_levels
        view.levels_of(num_levels)
        self.shape = (len(images), *view.shape_of(images.shape[1:]))
        self.dtype = self[:1].dtype

    def __len__(self):
        """N."""
        return len(self._images)

    def __getitem__(self, rows):
        """The views of some of the images, for a slice or an array of their numbers, or of one."""
        images = np.asarray(self._images[rows])
        return self.of(images[None])[0] if images.ndim == 3 else self.of(images)

    def __array__(self, dtype=None, copy=None):
        """All views. They must fit into the memory."""
        return np.asarray(self[:], dtype)

    def of(self, images):
        """The views [B, h, w, c] of other images [B, H, W, C] of the same kind."""
        return self._view.of(images, self._num_levels)


class ViewedData:
    """One split of a data set as a stage of a chain sees it. It is used like an `ImageData`.

    Attributes:
      source: `ImageData` of the whole images.
      images: What the stage models.
      labels: What its images are conditioned on: views of the same images; or the labels of
        `source` for a stage that has no such view.
      num_levels: L of `images`.
      num_classes: That of `source`, or None if `labels` are pictures.
      condition_levels: The number of levels of `labels` if they are pictures, or else None.
      uncropped, class_names: Those of `source`.
    """

    def __init__(self, source, view, condition_view=None):
        """Makes the views.

        Args:
          source: `ImageData`.
          view: Name of the view that the stage models, see `views`. None for the images.
          condition_view: Name of the view that it is conditioned on, or None.

        Raises:
          ValueError: If there is no such view of such images.
        """
        view = views.IMAGE if view is None else views.parse(view)
        self.source = source
        self.uncropped, self.class_names = source.uncropped, source.class_names
        self.images = ViewedArray(source.images, view, source.num_levels)
        self.num_levels = view.levels_of(source.num_levels)
        self.labels, self.num_classes = source.labels, source.num_classes
        self.condition_levels = None
        if condition_view is not None:
            condition_view = views.parse(condition_view)
            self.labels = ViewedArray(source.images, condition_view, source.num_levels)
            self.num_classes = None
            self.condition_levels = condition_view.levels_of(source.num_levels)

    @property
    def given_labels(self):
        """As in `ImageData`: the classes of the whole images."""
        return self.source.given_labels

    def of_batch(self, images, rows):
        """The images and labels of a batch, from whole images that may be cut and mirrored.

        Args:
          images: Integer array [B, H, W, C] of whole images.
          rows: Their numbers, an array [B].

        Returns:
          Images [B, h, w, c], and labels [B] or pictures [B, h', w', c']. None for no labels.
        """
        if self.condition_levels is not None:
            return self.images.of(images), self.labels.of(images)
        labels = None if self.labels is None else self.labels[rows]
        return self.images.of(images), labels
