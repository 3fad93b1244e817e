PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-photos demo-chains experiments mnist test lint

# Handwritten digits, class-conditional: two to four minutes on 2 cores.
demo: .venv
	rm -rf save/digits
	$(BIN)/python train.py --data_set digits --class_conditional --save_dir save/digits \
	  --nr_gpu 1 --nr_resnet 1 --nr_filters 32 --nr_logistic_mix 5 --dropout_p 0.5 \
	  --batch_size 32 --init_batch_size 128 --learning_rate 0.003 --polyak_decay 0.995 \
	  --max_epochs 40 --num_samples 0
	$(BIN)/python evaluate.py save/digits --baselines
	$(BIN)/python sample.py save/digits --num_samples 100
	$(BIN)/python sample.py save/digits --complete test --num_samples 8 --keep_rows 4 \
	  --out save/digits/samples/completed

# Photographs, 32x32 in colour: about 25 minutes on a core that does nothing else.
# After 10 epochs the learning rate starts anew, at 0.006 0.9997^6750 = 0.0008.
demo-photos: .venv
	rm -rf save/photos
	$(BIN)/python train.py --data_set photos --save_dir save/photos \
	  --nr_gpu 1 --receptive_field 15x8 --small_variant nin --nr_filters 24 --nr_logistic_mix 5 \
	  --dropout_p 0 --batch_size 8 --init_batch_size 64 --optimizer adam --learning_rate 0.002 \
	  --lr_decay 0.9995 --polyak_decay 0.998 --max_epochs 10 --num_samples 0
	$(BIN)/python train.py --save_dir save/photos --load_params \
	  --learning_rate 0.006 --lr_decay 0.9997 --max_epochs 22
	$(BIN)/python evaluate.py save/photos --baselines
	$(BIN)/python sample.py save/photos --num_samples 16

# A Grayscale and a Pyramid PixelCNN of the same photographs: under 30 minutes on 2 cores.
demo-chains: .venv
	rm -rf save/grayscale save/pyramid
	$(BIN)/python train.py --preset grayscale_photos --save_dir save/grayscale --nr_gpu 1
	$(BIN)/python evaluate.py save/grayscale
	$(BIN)/python sample.py save/grayscale --num_samples 8 --steps
	$(BIN)/python sample.py save/grayscale --given test --num_originals 6 --num_samples 6 \
	  --out save/grayscale/samples/coloured
	$(BIN)/python train.py --preset pyramid_photos --save_dir save/pyramid --nr_gpu 1
	$(BIN)/python evaluate.py save/pyramid
	$(BIN)/python sample.py save/pyramid --num_samples 8 --steps
	$(BIN)/python sample.py save/pyramid --given test --given_stage 8 --num_originals 6 \
	  --num_samples 6 --out save/pyramid/samples/enlarged
	$(BIN)/python sample.py save/pyramid --num_samples 6 --offsets 0,0.2,...,1.0 \
	  --out save/pyramid/samples/offsets

# The papers' comparisons on crops of photographs; what is done is not run again.
experiments: .venv
	$(BIN)/python experiments/run.py --data_set photos --image_size 16 --num_train_images 1024 \
	  --seeds 2 --jobs 2

# Every model of the family on binarized MNIST, 20 minutes each; what is done is not run again.
# The files of MNIST are looked for in $(MNIST), and downloaded there if they are not.
MNIST ?= data
mnist: .venv
	$(BIN)/python experiments/mnist.py --data_dir $(MNIST)

.venv: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch .venv

test: .venv
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
