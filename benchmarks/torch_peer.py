"""The network of PixelCNN++ in PyTorch, to time ours beside it. It is no part of the package.

It was written from the paper (Salimans et al. 2017), for images in colour, without classes. Its
weights have the names of ours, so that ours can be copied into it: `check` does this, and compares
the log-likelihoods.

What makes it a fair opponent: images, filters and everything between are stored channels-last;
cuDNN chooses its algorithms by timing them; float32 may multiply in TF32 on a GPU, as on JAX;
bfloat16 is PyTorch's autocast, with weights, likelihood and optimizer in float32 as in ours; one
function updates all weights and averages. Compiled, `torch.compile` has the network with the
likelihood and its gradient as one graph, and the update as another.
"""

import torch
import torch.nn.functional as F
from torch import nn

NUM_LEVELS = 256
KERNEL_STDDEV = 0.05
# Log-likelihoods of our network and of this one differ by rounding only.
_TOLERANCE = 1e-4


def concat_elu(x):
    """elu of [x, -x] on the channels, [B, F, H, W] -> [B, 2 F, H, W]."""
    return F.elu(torch.cat([x, -x], dim=1))


class WeightNorm(nn.Module):
    """Weights g v / ||v|| (Salimans & Kingma 2016); the norm is over all but output channels."""

    def __init__(self, shape, output_axis=0):
        super().__init__()
        filters = shape[output_axis]
        v = KERNEL_STDDEV * torch.randn(shape)
        if len(shape) == 4:
            v = v.to(memory_format=torch.channels_last)
        self.v = nn.Parameter(v)
        self.g = nn.Parameter(torch.ones(filters))
        self.b = nn.Parameter(torch.zeros(filters))
        self.axes = [axis for axis in range(len(shape)) if axis != output_axis]
        self.gain_shape = [filters if axis == output_axis else 1 for axis in range(len(shape))]

    def kernel(self):
        """The effective weights, in float32."""
        squared_norm = self.v.square().sum(self.axes, keepdim=True)
        return self.v * (self.g.view(self.gain_shape) * torch.rsqrt(squared_norm))


class Dense(WeightNorm):
    """A matrix over the channels: [B, F_in, H, W] -> [B, F, H, W]."""

    def __init__(self, in_features, filters):
        super().__init__((filters, in_features))

    def forward(self, x):
        """Multiplies positions [.., F_in], which channels-last images are already."""
        return F.linear(x.permute(0, 2, 3, 1), self.kernel(), self.b).permute(0, 3, 1, 2)


class Convolution(WeightNorm):
    """A convolution after zeros (left, right, top), so that it sees no rows below its position."""

    def __init__(self, in_features, filters, size, zeros, stride=1):
        super().__init__((filters, in_features, *size))
        self.pads = (*zeros, 0)
        self.stride = stride

    def forward(self, x):
        """[B, F_in, H, W] -> [B, F, H / stride, W / stride]."""
        return F.conv2d(F.pad(x, self.pads), self.kernel(), self.b, self.stride)


class Transposed(WeightNorm):
    """A transposed convolution that doubles height and width, cropped from a first column on."""

    def __init__(self, in_features, filters, size, first_column):
        super().__init__((in_features, filters, *size), output_axis=1)
        self.first_column = first_column

    def forward(self, x):
        """[B, F_in, H, W] -> [B, F, 2 H, 2 W]."""
        height, width = x.shape[2:]
        x = F.conv_transpose2d(x, self.kernel(), self.b, 2, output_padding=1)
        first = self.first_column
        return x[:, :, : 2 * height, first : first + 2 * width]


# The filters of the two streams: size and zeros (left, right, top).
DOWN = {"size": (2, 3), "zeros": (1, 1, 1)}
RIGHT = {"size": (2, 2), "zeros": (1, 0, 1)}


class Block(nn.Module):
    """The gated residual block: x + value * sigmoid(gate) (section 2.4)."""

    def __init__(self, filters, short_cut, form, dropout_p):
        super().__init__()
        self.conv_in = Convolution(2 * filters, filters, **form)
        self.skip = Dense(2 * short_cut, filters) if short_cut else None
        self.conv_out = Convolution(2 * filters, 2 * filters, **form)
        self.dropout_p = dropout_p

    def forward(self, x, a=None):
        """x [B, F, H, W] and its short-cut input a, or None -> [B, F, H, W]."""
        c = self.conv_in(concat_elu(x))
        if a is not None:
            c = c + self.skip(concat_elu(a))
        c = F.dropout(concat_elu(c), self.dropout_p, self.training)
        value, gate = self.conv_out(c).chunk(2, dim=1)
        return x + value * torch.sigmoid(gate)


class PixelCNNPP(nn.Module):
    """PixelCNN++ with the full receptive field and the mixture of logistics, in colour."""

    def __init__(self, config):
        """Makes the network of a `ModelConfig`.

        Raises:
          ValueError: If it asks for a variant that this network does not have.
        """
        super().__init__()
        variant = (config.image_shape[-1], config.num_levels, config.likelihood)
        if variant != (3, NUM_LEVELS, "logistic_mixture") or config.num_classes is not None:
            raise ValueError(f"`config` must be of unlabelled colour images. Received: {config}")
        filters, num_blocks = config.nr_filters, config.nr_resnet
        self.num_blocks = num_blocks
        self.input_above = Convolution(4, filters, **DOWN)
        self.input_row_above = Convolution(4, filters, size=(1, 3), zeros=(1, 1, 0))
        self.input_left = Convolution(4, filters, size=(2, 1), zeros=(0, 0, 1))

        def stream(form, short_cut, length, changes):
            layers = [Block(filters, short_cut, form, config.dropout_p) for _ in range(length)]
            for i, make in changes.items():
                layers[i] = make(form)
            return layers

        def halve(form):
            return Convolution(filters, filters, **form, stride=2)

        def double(form):
            return Transposed(filters, filters, form["size"], (form["size"][1] - 1) // 2)

        length = 3 * num_blocks + 2
        halves = {num_blocks: halve, 2 * num_blocks + 1: halve}
        # After each doubling there is one block more, for the short-cut of the halving layer.
        doubles = {num_blocks: double, 2 * num_blocks + 2: double}
        self.streams = {
            "encoder_down": stream(DOWN, 0, length, halves),
            "encoder_right": stream(RIGHT, filters, length, halves),
            "decoder_down": stream(DOWN, filters, length + 2, doubles),
            "decoder_right": stream(RIGHT, 2 * filters, length + 2, doubles),
        }
        for name, layers in self.streams.items():
            for i, layer in enumerate(layers):
                self.add_module(f"{name}_{i}", layer)
        self.output = Dense(filters, 10 * config.nr_logistic_mix)

    def pairs(self, part):
        """The layers of both streams, in pairs, for one half of the network."""
        return zip(self.streams[f"{part}_down"], self.streams[f"{part}_right"], strict=True)

    def forward(self, images):
        """Images [B, 3, H, W] of levels, channels-last -> raw parameters [B, H, W, 10 K]."""
        half_range = (NUM_LEVELS - 1) / 2
        # A channel of ones tells the picture from the zeros around it.
        x = F.pad((images.float() - half_range) / half_range, (0, 0, 0, 0, 0, 1), value=1.0)
        x = x.contiguous(memory_format=torch.channels_last)
        down = _shift_down(self.input_above(x))
        right = _shift_down(self.input_row_above(x)) + F.pad(
            self.input_left(x)[:, :, :, :-1], (1, 0)
        )
        skips = [(down, right)]
        for down_layer, right_layer in self.pairs("encoder"):
            if isinstance(down_layer, Block):
                down = down_layer(down)
                right = right_layer(right, down)
            else:
                down, right = down_layer(down), right_layer(right)
            skips.append((down, right))
        skips.pop()
        for down_layer, right_layer in self.pairs("decoder"):
            if isinstance(down_layer, Block):
                skip_down, skip_right = skips.pop()
                down = down_layer(down, skip_down)
                right = right_layer(right, torch.cat([down, skip_right], dim=1))
            else:
                down, right = down_layer(down), right_layer(right)
        assert not skips, "a short-cut leads nowhere"
        # The likelihood's inputs are not rounded to bfloat16.
        with torch.autocast(right.device.type, enabled=False):
            return self.output(F.elu(right).float()).permute(0, 2, 3, 1)


def _shift_down(x):
    """Moves every row down by one: [B, F, H, W] -> [B, F, H, W]."""
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def log_prob(raw_params, images):
    """Log-likelihood of images under the mixture of logistics (sections 2.1 and 2.2).

    Args:
      raw_params: Float tensor [B, H, W, 10 K].
      images: Integer tensor [B, 3, H, W].

    Returns:
      Tensor [B], nats.
    """
    half_range = (NUM_LEVELS - 1) / 2
    groups = raw_params.unflatten(-1, (10, -1)).unbind(-2)  # each [B, H, W, K]
    weights = F.log_softmax(groups[0], dim=-1)
    locs, log_scales, coeffs = groups[1::3], groups[2::3], groups[3::3]
    levels = [level[..., None].float() for level in images.unbind(1)]  # each [B, H, W, 1]
    values = [(level - half_range) / half_range for level in levels]
    shift, to_blue_from_red, to_blue_from_green = (torch.tanh(coeff) for coeff in coeffs)
    means = (
        locs[0],
        locs[1] + shift * values[0],
        locs[2] + to_blue_from_red * values[0] + to_blue_from_green * values[1],
    )
    total = weights
    for level, value, mean, log_scale in zip(levels, values, means, log_scales, strict=True):
        total = total + _log_mass(level, value - mean, log_scale.clamp(min=-7.0))
    return torch.logsumexp(total, dim=-1).sum((1, 2))


def _log_mass(level, distance, log_scale):
    """Log of the mass of a level's bin, at a distance from the mean of a logistic."""
    inverse_scale = torch.exp(-log_scale)
    half_bin = 1 / (NUM_LEVELS - 1)
    below_upper = F.logsigmoid((distance + half_bin) * inverse_scale)
    above_lower = F.logsigmoid(-(distance - half_bin) * inverse_scale)
    between = torch.log(-torch.expm1(-2 * half_bin * inverse_scale))
    inside = below_upper + above_lower + between
    is_top = level > NUM_LEVELS - 1.5
    return torch.where(level < 0.5, below_upper, torch.where(is_top, above_lower, inside))


class Contestant:
    """The network on its device, with the functions that are timed."""

    def __init__(self, config, images, dtype, is_compiled, training):
        """Makes the network.

        Args:
          config: `ModelConfig`.
          images: uint8 array [B, H, W, 3].
          dtype: "float32" or "bfloat16".
          is_compiled: Whether `torch.compile` compiles the step and the log-likelihood.
          training: `TrainingConfig`, for the rates of learning and averaging.
        """
        self.mode = None
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._dtype, self._is_compiled, self._training = dtype, is_compiled, training
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self.network = PixelCNNPP(config).to(self.device)
        self.images = self._on_device(images)

    def num_params(self):
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def check(self, model, images):
        """Copies our weights into this network, and compares the two in float32.

        Args:
          model: Our `PixelCNNPP`, in float32.
          images: uint8 array [B, H, W, 3].

        Raises:
          ValueError: If the numbers of parameters or the log-likelihoods are not the same.
        """
        from keras import ops

        own = dict(self.network.named_parameters())
        for weight in model.trainable_weights:
            # The first part of the path is the name of the model.
            parameter = own.pop(".".join(weight.path.split("/")[1:]))
            value = torch.from_numpy(ops.convert_to_numpy(weight.value).copy())
            # Ours ends with the output channels, and a transposed filter with the input channels.
            value = value.permute(*range(value.dim())[::-1])
            if value.dim() == 4:
                value = value.transpose(2, 3)
            with torch.no_grad():
                parameter.copy_(value)
        if own:
            raise ValueError(f"PyTorch's network has other weights than ours: {sorted(own)}")
        expected = ops.convert_to_numpy(model.log_prob(images))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self.network.eval()
        with torch.no_grad():
            images = self._on_device(images)
            found = log_prob(self.network(images), images).cpu().numpy()
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        error = float(max(abs(found / expected - 1)))
        if not error < _TOLERANCE:
            raise ValueError(
                f"PyTorch's network is not ours: with the same weights, log-likelihoods differ by "
                f"{error:.1e}. Received: {found} instead of {expected}"
            )

    def make_step(self):
        """A function for one training step; it returns the loss, nats, on the device."""
        parameters = list(self.network.parameters())
        averages = [parameter.detach().clone() for parameter in parameters]
        optimizer = torch.optim.Adamax(
            parameters,
            torch.tensor(self._training.learning_rate, device=self.device),
            foreach=True,
            capturable=self.device == "cuda",
        )
        # A step with gradients of zero makes the optimizer's numbers, and changes no weight. Made in
        # the first real step, they would have it compiled twice.
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        weight = 1 - self._training.polyak_decay

        def nats_of(images):
            with self._autocast():
                raw_params = self.network(images)
            return -log_prob(raw_params, images).sum()

        def update():
            optimizer.step()
            torch._foreach_lerp_(averages, parameters, weight)

        nats_of, update = self._compiled(nats_of), self._compiled(update)

        def step():
            self.network.train()
            nats = nats_of(self.images)
            nats.backward()
            with torch.no_grad():
                update()
            optimizer.zero_grad(set_to_none=True)
            return nats.detach()

        return step

    def make_log_prob(self):
        """A function that returns the log-likelihoods [B] of the images, nats, on the device."""

        def scores(images):
            with self._autocast():
                raw_params = self.network(images)
            return log_prob(raw_params, images)

        scores = self._compiled(scores)

        def run():
            self.network.eval()
            with torch.inference_mode():
                return scores(self.images)

        return run

    def peak_bytes(self):
        """Most bytes of the GPU at one time; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def device_name(self):
        """What it computes on."""
        return torch.cuda.get_device_name() if self.device == "cuda" else "cpu"

    def _on_device(self, images):
        """Images [B, H, W, 3] as [B, 3, H, W], still channels-last."""
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)

    def _autocast(self):
        return torch.autocast(
            self.device, torch.bfloat16, enabled=self._dtype == "bfloat16", cache_enabled=False
        )

    def _compiled(self, function):
        if not self._is_compiled:
            return function
        return torch.compile(function, dynamic=False, mode=self.mode)
