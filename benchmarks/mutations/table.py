"""The wrong changes, each as a mistake would make it, and the tests that have to fail."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A wrong change.

    Attributes:
        name (str): Its room and what is wrong.
        file (str): Relative to the root.
        old (str): What stands there once, however its lines are broken.
        new (str): What takes its place.
        tests (tuple[str, ...]): Ids of the tests of which one has to fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BACKBONES, LAYERS, OPS = 'mmmeta/models/backbones', 'mmmeta/models/layers', 'mmmeta/models/ops'
ACTIVATIONS, WINDOWS, POOLING = f'{OPS}/scaled_square.py', f'{OPS}/windows.py', f'{OPS}/pooling.py'
NORMS, BLOCK, METAFORMER = f'{LAYERS}/norms.py', f'{LAYERS}/block.py', f'{BACKBONES}/metaformer.py'
OF_LAYERS, OF_METAFORMER = 'tests/models/test_layers.py', 'tests/models/test_metaformer.py'
OF_WINDOWS = 'tests/models/test_windows.py'
MODELS = [
    Mutation(
        'models: eps of group norm is forgotten',
        NORMS,
        'super().__init__(1, num_channels, eps=eps)',
        'super().__init__(1, num_channels)',
        (f'{OF_LAYERS}::test_eps_is_added_to_the_variance',),
    ),
    Mutation(
        'models: bias of StarReLU is left out without gradients',
        ACTIVATIONS,
        '.mul_(positive).add_(bias)',
        '.mul_(positive)',
        (f'{OF_LAYERS}::test_star_relu_of_tensors_laid_out_in_any_way[a line]',),
    ),
    Mutation(
        'models: windows at the border are moved one token too far',
        WINDOWS,
        'low = (queries - left).clamp(min=0, max=torch.sym_max(length - window, 0))',
        'low = (queries - left).clamp(min=0, max=torch.sym_max(length - window - 1, 0))',
        (f'{OF_WINDOWS}::test_shifted_windows_are_the_valid_windows_repeated_at_the_border',),
    ),
    Mutation(
        'models: zeros beyond the border count in pooling',
        POOLING,
        'count_include_pad=False',
        'count_include_pad=True',
        (f'{OF_LAYERS}::test_pooling_leaves_the_border_out_of_the_mean',),
    ),
    Mutation(
        'models: kept branches of stochastic depth are not scaled up',
        BLOCK,
        'x * (mask / keep_prob)',
        'x * mask',
        (f'{OF_LAYERS}::test_drop_path_drops_whole_images_and_keeps_the_mean',),
    ),
    Mutation(
        'models: stochastic depth begins anew in each stage',
        METAFORMER,
        'drop_paths[sum(self.depths[:i]) :]',
        'drop_paths',
        (f'{OF_METAFORMER}::test_drop_path_grows_linearly_over_the_blocks',),
    ),
    Mutation(
        'models: frozen parts are not in eval mode',
        METAFORMER,
        'for module in self._frozen_modules(): module.eval()',
        'for module in self._frozen_modules():',
        (f'{OF_METAFORMER}::test_frozen_stages_stops_exactly_these_parameters[1]',),
    ),
    Mutation(
        'models: layer decay gives the first block the depth of the stem',
        METAFORMER,
        'sum(self.depths[:stage]) + block + 1',
        'sum(self.depths[:stage]) + block',
        (f'{OF_METAFORMER}::TestLayerDepth::test_counts_the_stem_then_blocks_then_the_rest',),
    ),
    Mutation(
        'models: residual scales in the last stage alone',
        f'{BACKBONES}/arch.py',
        'i >= num_stages - 2',
        'i > num_stages - 2',
        (f'{OF_METAFORMER}::test_weights_are_initialised_as_in_the_papers',),
    ),
    Mutation(
        'models: initial layer scale of PoolFormer-S24 is that of the deep ones',
        f'{BACKBONES}/families.py',
        "1e-5 if name in ('s12', 's24') else 1e-6",
        "1e-5 if name in ('s12',) else 1e-6",
        (f'{OF_METAFORMER}::test_weights_are_initialised_as_in_the_papers',),
    ),
]

OF_FILES, OF_LOADING = 'tests/weights/test_files.py', 'tests/weights/test_loading.py'
OF_PRIORITIES = f'{OF_FILES}::test_of_several_networks_the_averaged_one_and_the_teacher_come_first'
WEIGHTS = [
    Mutation(
        'weights: the averaged weights come after the last ones',
        'mmmeta/weights/files.py',
        "('state_dict_ema', 'model_ema', 'state_dict', 'model',",
        "('state_dict', 'model', 'state_dict_ema', 'model_ema',",
        (OF_PRIORITIES,),
    ),
    Mutation(
        "weights: the student's in place of the teacher's",
        'mmmeta/weights/files.py',
        "'teacher', 'student')",
        "'student', 'teacher')",
        (OF_PRIORITIES,),
    ),
    Mutation(
        'weights: infinite values are taken',
        'mmmeta/weights/files.py',
        'bool(torch.isfinite(tensor).all())',
        'not bool(torch.isnan(tensor).any())',
        (f'{OF_LOADING}::TestMisfits::test_a_value_that_is_no_number[inf]',),
    ),
    Mutation(
        'weights: half an output norm is new',
        'mmmeta/weights/loading.py',
        "if name.startswith('norms.') and name.rpartition('.')[0] not in norms",
        "if name.startswith('norms.') and name not in given",
        (f'{OF_LOADING}::TestMisfits::test_half_a_norm',),
    ),
    Mutation(
        'weights: downsamplings of PoolFormer are taken from the next stage',
        'mmmeta/weights/layouts.py',
        'odd=2 * i - 1',
        'odd=2 * i + 1',
        ('tests/weights/test_layouts.py::test_layout_of_sail_poolformer_and_transformers',),
    ),
]

OF_CHECKPOINT_HOOK = 'tests/engine/test_checkpoint_hook.py'
CHECKPOINT_HOOK = 'mmmeta/engine/checkpoint_hook.py'
ENGINE = [
    Mutation(
        'engine: the newest checkpoint is pruned, not the oldest',
        CHECKPOINT_HOOK,
        'names.pop(0)',
        'names.pop()',
        (f'{OF_CHECKPOINT_HOOK}::test_folders_of_sharded_checkpoints_are_pruned',),
    ),
    Mutation(
        'engine: a best checkpoint that was replaced stays',
        CHECKPOINT_HOOK,
        'self._prune(self._best.get(key, []), 1)',
        'self._prune(self._best.get(key, []), 2)',
        (f'{OF_CHECKPOINT_HOOK}::test_each_metric_has_one_best_checkpoint',),
    ),
    Mutation(
        'engine: a run stopped in a validation resumes with the random numbers behind it',
        'mmmeta/engine/stopping.py',
        'hook.save_now(runner, epoch, iteration, states)',
        'hook.save_now(runner, epoch, iteration)',
        (
            'tests/engine/test_stopping.py::'
            'test_a_run_stopped_in_a_validation_goes_on_as_if_there_had_been_none',
        ),
    ),
    Mutation(
        'engine: infinite losses are counted in all, not in a row',
        'mmmeta/engine/stopping.py',
        '(self.counts + 1).masked_fill(finite, 0)',
        'self.counts + (~finite).long()',
        ('tests/engine/test_stopping.py::test_losses_have_to_be_infinite_in_a_row',),
    ),
    Mutation(
        'engine: all processes resume the gradients of the first',
        'mmmeta/engine/accumulation.py',
        'gradients[get_rank()].items()',
        'gradients[0].items()',
        ('tests/engine/test_accumulation.py::test_its_own_gradients[1]',),
    ),
    Mutation(
        'engine: all processes resume the random numbers of the first',
        'mmmeta/engine/random_state.py',
        'state = states[get_rank()]',
        'state = states[0]',
        ('tests/engine/test_accumulation.py::test_its_own_random_numbers[1]',),
    ),
    Mutation(
        'engine: all processes draw the same augmentations',
        'mmmeta/engine/random_state.py',
        'seed_generators(seed, rank, *index.position)',
        'seed_generators(seed, *index.position)',
        ('tests/engine/test_loops.py::test_each_process_draws_numbers_of_its_own',),
    ),
    Mutation(
        'engine: a run stopped at the end of an epoch repeats it',
        'mmmeta/engine/loops.py',
        'done = self._iter - self._epoch * len(self.dataloader)',
        'done = self._iter % len(self.dataloader)',
        ('tests/engine/test_loops.py::test_epochs_go_on_in_the_middle_with_the_same_random_numbers',),
    ),
    Mutation(
        'engine: means of losses are over all processes, not over those that have it',
        'mmmeta/engine/hooks.py',
        'outputs[name] = total / count',
        'outputs[name] = total / get_world_size()',
        ('tests/engine/test_mean_loss.py::test_processes_with_other_losses_communicate_alike',),
    ),
    Mutation(
        'engine: categories may be in another order than the classes',
        'mmmeta/engine/hooks.py',
        'and ordered != list(classes)',
        'and {*ordered} != {*classes}',
        (
            'tests/apis/test_creating.py::TestObjects::'
            'test_classes_in_another_order_than_the_file_are_refused',
        ),
    ),
]

OF_ADAPTATION = 'tests/config/test_adaptation.py::test_nothing_is_left_that_needs_a_gpu'
CONFIG = [
    Mutation(
        'config: sync_bn is kept on a CPU',
        'mmmeta/config/adaptation.py',
        "cfg.pop('sync_bn', None)",
        'pass',
        (OF_ADAPTATION,),
    ),
    Mutation(
        'config: the dtype of mixed precision is kept on a CPU',
        'mmmeta/config/adaptation.py',
        "('loss_scale', 'dtype', 'use_fsdp')",
        "('loss_scale', 'use_fsdp')",
        (OF_ADAPTATION,),
    ),
    Mutation(
        'config: the smallest value of a range is not in it',
        'mmmeta/config/values.py',
        'max(self.smallest, -limit) <= value',
        'max(self.smallest, -limit) < value',
        ('tests/apis/test_cli.py::test_numbers_of_arguments',),
    ),
]

OF_CHECKING = 'tests/apis/test_checking.py'
VALIDATION = [
    Mutation(
        'validation: a label equal to the number of classes passes while training',
        'mmmeta/validation/labels.py',
        'labels >= self.num_classes',
        'labels > self.num_classes',
        (f'{OF_CHECKING}::TestLabels::test_out_of_range_while_training',),
    ),
    Mutation(
        'validation: a label equal to the number of classes passes the check',
        'mmmeta/validation/labels.py',
        'num_classes <= value != ignore_index',
        'num_classes < value != ignore_index',
        (f'{OF_CHECKING}::TestLabels::test_out_of_range',),
    ),
    Mutation(
        'validation: means that are too small pass',
        'mmmeta/validation/pixels.py',
        'abs(a - b) < 1',
        'a - b < 1',
        (f'{OF_CHECKING}::test_a_mistake_is_found[model.data_preprocessor.mean-mean=[123.675, 116.2]',),
    ),
    Mutation(
        'validation: the map after the last one is there',
        'mmmeta/validation/wiring.py',
        'highest >= len(given)',
        'highest > len(given)',
        (f'{OF_CHECKING}::test_a_mistake_is_found[model.auxiliary_head.in_index-has map 4, and the b]',),
    ),
]

OF_SWAPPING = 'tests/apis/test_swapping.py'
OF_LEFT_OUT = f'{OF_SWAPPING}::test_maps_that_are_counted_from_the_last_where_others_are_left_out'
OF_WIRINGS = f'{OF_SWAPPING}::test_channels_stages_and_strides'
OF_PSPNET = 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'
SWAPPING = [
    Mutation(
        'swapping: maps are counted from the last of those that are left',
        'mmmeta/swapping/maps.py',
        'chosen = [places[i % len(old)] for i in index]',
        'chosen = [places[i] if i >= 0 else i % len(old) for i in index]',
        (OF_LEFT_OUT,),
    ),
    Mutation(
        'swapping: channels of a neck that counts from the last are not reversed',
        'mmmeta/swapping/maps.py',
        'ordered = new if list(value) == old else new[::-1]',
        'ordered = new',
        (f'{OF_WIRINGS}[mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py]',),
    ),
    Mutation(
        'swapping: the learning rate grows as the batch shrinks',
        'mmmeta/swapping/recipe.py',
        "f'{rate * batch / base:.2g}'",
        "f'{rate * base / batch:.2g}'",
        (f'{OF_SWAPPING}::test_optimiser_schedule_and_weights[{OF_PSPNET}]',),
    ),
]

OF_CREATING = 'tests/apis/test_creating.py'
SCAFFOLD = [
    Mutation(
        'scaffold: pixels of Pascal VOC are counted from 0',
        'mmmeta/scaffold/boxes.py',
        '(float(corner) - 1 for corner in corners)',
        '(float(corner) for corner in corners)',
        (f'{OF_CREATING}::test_objects_of_other_formats[store_voc-Annotations]',),
    ),
    Mutation(
        'scaffold: the centre of a box of YOLO is taken for its corner',
        'mmmeta/scaffold/boxes.py',
        '(x - w / 2) * width',
        'x * width',
        (f'{OF_CREATING}::test_turned_images',),
    ),
    Mutation(
        'scaffold: the learning rate of random weights for published ones',
        'mmmeta/scaffold/text.py',
        'RATES[task][0 if weights else 1]',
        'RATES[task][1 if weights else 0]',
        (f'{OF_CREATING}::test_folders_of_classes',),
    ),
    Mutation(
        'scaffold: categories are written in the order of their ids, not of the classes',
        'mmmeta/scaffold/detection.py',
        "key=lambda category: order.get(category['name'], len(names))",
        "key=lambda category: category['id']",
        (f'{OF_CREATING}::TestObjects::test_objects_keep_their_classes_in_any_order[val0-red,green]',),
    ),
]

OF_RUNTIME, OF_DETECTORS = 'tests/deploy/test_runtime.py', 'tests/deploy/test_detectors.py'
OF_CHANNELS = 'tests/deploy/test_networks.py::test_means_belong_to_the_channels_of_the_network'
OF_RETINANET = (
    f'{OF_DETECTORS}::test_the_same_boxes_in_the_same_order[configs/retinanet_poolformer_s12_coco.py]'
)
DEPLOY = [
    Mutation(
        'deploy: an exported network that takes blue first is given red first',
        'mmmeta/deploy/networks.py',
        'image.flip(1) if self.description.is_bgr else image',
        'image',
        (f'{OF_CHANNELS}[mmseg-SegDataPreProcessor-bgr_to_rgb-more0-False]',),
    ),
    Mutation(
        'deploy: the colour of padding is blue first',
        'mmmeta/deploy/preprocessing.py',
        "[:: -1 if result.reads == 'color' else 1]",
        '',
        (f'{OF_RUNTIME}::test_preprocessing_of_a_test_pipeline',),
    ),
    Mutation(
        'deploy: boxes suppress those of other classes',
        'mmmeta/deploy/detection.py',
        "groups = torch.zeros_like(labels) if cfg.nms.get('class_agnostic') else labels",
        'groups = torch.zeros_like(labels)',
        (OF_RETINANET,),
    ),
    Mutation(
        'deploy: eight bits are calibrated with the first images',
        'mmmeta/deploy/samples.py',
        'for i in _spread(len(data), samples)]',
        'for i in range(len(_spread(len(data), samples)))]',
        (
            'tests/deploy/test_samples.py::test_images_for_calibration_are_spread_over_the_training_set[4-chosen2]',
        ),
    ),
    Mutation(
        'deploy: boxes that are too far to the right are the same',
        'mmmeta/deploy/comparing.py',
        'np.abs(true.boxes[:, None] - own.boxes[None]).max(2, initial=0)',
        '(true.boxes[:, None] - own.boxes[None]).max(2, initial=0)',
        ('tests/deploy/test_exporting.py::test_a_miss_counts_unless_a_tie_explains_it',),
    ),
]

RUN = 'mmmeta/runtime/run.py'
OF_THRESHOLD = f'{OF_RUNTIME}::test_a_score_equal_to_the_threshold_is_drawn_and_written'
RUNTIME = [
    Mutation(
        'runtime: a probability equal to the threshold is not of the object',
        RUN,
        'weights[0] @ mask @ weights[1].T >= threshold',
        'weights[0] @ mask @ weights[1].T > threshold',
        (f'{OF_RUNTIME}::test_a_probability_equal_to_the_threshold_is_of_the_object',),
    ),
    Mutation(
        'runtime: a score equal to the threshold is not written',
        RUN,
        'if score < score_thr:',
        'if score <= score_thr:',
        (OF_THRESHOLD,),
    ),
    Mutation(
        'runtime: masks are pasted half a pixel off',
        RUN,
        'np.arange(first, last, dtype=np.float32) + np.float32(0.5)',
        'np.arange(first, last, dtype=np.float32)',
        (f'{OF_RUNTIME}::test_masks_as_mmdetection_pastes_them',),
    ),
    Mutation(
        'runtime: sizes are rounded down',
        RUN,
        'int(side * factor + 0.5)',
        'int(side * factor)',
        (f'{OF_RUNTIME}::test_sizes_that_keep_the_ratio_are_those_of_mmcv',),
    ),
]

DATASETS = [
    Mutation(
        'datasets: images for validation are those for training',
        'mmmeta/datasets/ade20k.py',
        'np.random.default_rng([seed, split, i])',
        'np.random.default_rng([seed, i])',
        ('tests/datasets/test_ade20k.py::test_no_image_is_in_both_parts',),
    ),
    Mutation(
        "datasets: identifiers of COCO's categories without its gaps",
        'mmmeta/datasets/coco.py',
        'i for i in range(1, 91) if i not in UNUSED',
        'i for i in range(1, 81)',
        ('tests/datasets/test_coco.py::test_categories_are_those_of_coco',),
    ),
    Mutation(
        'datasets: one orientation of turned images is not known',
        'mmmeta/datasets/images.py',
        'ON_ITS_SIDE = range(5, 9)',
        'ON_ITS_SIDE = range(6, 9)',
        ('tests/datasets/test_shown_size.py::test_of_every_orientation[5]',),
    ),
]

EVALUATION = [
    Mutation(
        'evaluation: the mean corruption error is a ratio of means',
        'mmmeta/evaluation/robustness.py',
        'sum(relative.values()) / len(relative)',
        '100 * sum(errors.values()) / sum(ALEXNET_ERRORS.values())',
        ('tests/evaluation/test_robustness.py::test_corruption_error',),
    ),
]

OF_REPRODUCE = 'tests/analysis/test_reproduce.py'
ANALYSIS = [
    Mutation(
        'analysis: counts below the printed ones are no deviation',
        'mmmeta/analysis/paper_tables.py',
        'abs(counted - float(self.text))',
        '(counted - float(self.text))',
        ('tests/analysis/test_complexity.py::test_a_number_that_is_off_is_told',),
    ),
    Mutation(
        'analysis: the learning rate has to shrink as the batch grows',
        'mmmeta/analysis/reproduce.py',
        'math.isclose(scale, batch / base)',
        'math.isclose(scale, base / batch)',
        (f'{OF_REPRODUCE}::test_what_is_not_as_in_the_config_stands_apart',),
    ),
    Mutation(
        'analysis: evaluations of epochs stand at the numbers of the epochs',
        'mmmeta/analysis/curves.py',
        'max(at, trained)',
        'at',
        ('tests/analysis/test_curves.py::test_evaluations_of_epochs_stand_at_their_iterations',),
    ),
]

OF_INFERENCE = 'tests/apis/test_inference.py'
APIS = [
    Mutation(
        "apis: names of the data set's class come before those of the config",
        'mmmeta/apis/inference.py',
        '{**own, **given}',
        '{**given, **own}',
        (f'{OF_INFERENCE}::TestMetainfo::test_the_config_comes_first',),
    ),
    Mutation(
        'apis: colours are looked up by number',
        'mmmeta/datasets/classes.py',
        "dict(zip(own['classes'], palette, strict=True))",
        'dict(zip(classes, palette, strict=False))',
        (f'{OF_INFERENCE}::TestMetainfo::test_colours_are_those_of_the_names',),
    ),
    Mutation(
        'apis: the best score of a class is its last',
        'mmmeta/apis/inference.py',
        'max(score, best.get(label, 0.0))',
        'score',
        (f'{OF_INFERENCE}::test_the_best_score_of_a_class_is_its_largest',),
    ),
    Mutation(
        'apis: a score equal to the threshold is left out',
        'mmmeta/apis/inference.py',
        'found.scores >= score_thr',
        'found.scores > score_thr',
        (f'{OF_INFERENCE}::test_a_score_equal_to_the_threshold_is_kept_and_drawn',),
    ),
]

CLI = [
    Mutation(
        'cli: the last value of an option is left out',
        'mmmeta/cli/arguments.py',
        'parts if parts[-1].strip() else parts[:-1]',
        'parts[:-1]',
        ('tests/apis/test_cli.py::test_values_of_options',),
    ),
]

ROOMS = (MODELS, WEIGHTS, ENGINE, CONFIG, VALIDATION, SWAPPING, SCAFFOLD, DEPLOY, RUNTIME, DATASETS)
ROOMS += (EVALUATION, ANALYSIS, APIS, CLI)
MUTATIONS = [mutation for room in ROOMS for mutation in room]
