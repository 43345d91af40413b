package recipe

import (
	"strings"
	"testing"
)

// minimalOf plans the checkout and shows its minimal run.
func minimalOf(t *testing.T, files map[string]string) string {
	t.Helper()
	f := facts(t, files)
	ch := Choose(f, Commands(f), nil)
	for _, r := range ch.Runs {
		if r.Kind != "minimal" {
			continue
		}
		var b strings.Builder
		for _, s := range r.Setup {
			b.WriteString(strings.Join(s.Argv, " ") + " ; ")
		}
		b.WriteString(r.Command + " [" + r.Status + "]")
		return b.String()
	}
	return "none"
}

// TestWhatAPersonChooses plans small repositories whose first command is not
// the one to run, or not the only one.
func TestWhatAPersonChooses(t *testing.T) {
	train := "import torch\ndef main():\n    loss.backward()\n"
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"the method, not the baselines": {map[string]string{
			"README.md":   "# ZipNet: training in reverse\n\n```bash\n# Adam\nbash finetune.sh\n\n# ZipNet\nbash zipnet.sh\n```\n",
			"finetune.sh": "python run.py --a\n", "zipnet.sh": "python run.py --b\n", "run.py": train},
			"bash zipnet.sh [auto]"},
		"one seed, not ten": {map[string]string{
			"README.md": "# x\n\n```bash\npython main.py --cfg a.yaml --repeat 10\npython main.py --cfg a.yaml\n```\n", "main.py": train, "a.yaml": "x: 1\n"},
			"python main.py --cfg a.yaml [auto]"},
		"what makes the input comes first": {map[string]string{
			"README.md":   "# x\n\n## Calculating FID\n\n```bash\n# generate images\npython generate.py --outdir=tmp-images --network=https://h.example/net.pkl\n\n# calculate FID\npython fid.py calc --images=tmp-images\n```\n",
			"generate.py": "import torch\n", "fid.py": "import torch\nprint('FID:', fid)\n"},
			"python generate.py --outdir=tmp-images --network=https://h.example/net.pkl ; python fid.py calc --images=tmp-images [auto]"},
		"an input that a link gives": {map[string]string{
			"README.md": "# x\n\nReference batch: [ref.npz](https://h.example/data/ref.npz)\n\n## Evaluation\n\n```\npython evaluate.py ref.npz\n```\n", "evaluate.py": "import numpy\nprint('FID:', x)\n"},
			"wget -O ref.npz https://h.example/data/ref.npz ; python evaluate.py ref.npz [auto]"},
		"an input that nothing gives": {map[string]string{
			"README.md": "# x\n\n## Evaluation\n\n```\npython evaluate.py ref.npz\n```\n", "evaluate.py": "import numpy\nprint('FID:', x)\n"},
			"python evaluate.py ref.npz [manual_data]"},
		"a file that the program finds by its name": {map[string]string{
			"README.md": "# x\n\n## Evaluation\n\n```\npython -m exp.evaluate --hparams small.json\n```\n", "exp/evaluate.py": "import numpy\nprint('accuracy:', x)\n", "hparams/ours/small.json": "{}"},
			"python -m exp.evaluate --hparams small.json [auto]"},
		"data that lies in no folder": {map[string]string{
			"README.md": "# x\n\n```\npython main.py --data ETTh1\n```\n", "main.py": train + "p.add_argument('--root_path', default='./data/ETT/')\n"},
			"python main.py --data ETTh1 [manual_data]"},
		"data that the program fetches": {map[string]string{
			"README.md": "# x\n\n```\npython main.py\n```\n", "main.py": train + "p.add_argument('--data_dir', default='./data')\nd = datasets.load_dataset('x')\n"},
			"python main.py [auto]"},
		"a prompt is a demonstration": {map[string]string{
			"README.md": "# x\n\n```\npython scripts/txt2img.py --prompt \"a cat\"\n```\n\n```\npython main.py\n```\n", "scripts/txt2img.py": "import torch\n", "main.py": train},
			"python main.py [auto]"},
		"sums of other runs": {map[string]string{
			"README.md": "# x\n\n```\npython evaluate.py\npython summarize.py\n```\n", "evaluate.py": "import torch\nprint('accuracy:', a)\n", "summarize.py": "import numpy\nprint('accuracy:', a)\n"},
			"python evaluate.py [auto]"},
		"options in brackets and folders to write to": {map[string]string{
			"README.md": "# x\n\n```\npython train.py --steps 5 [--fp16 true] --output_dir /path/to/out\n```\n", "train.py": train},
			"python train.py --steps 5 --output_dir run_output [auto]"},
		"placeholders of several words": {map[string]string{
			"README.md": "# x\n\n```\npython train.py files={path to the files} n=[list of numbers]\n```\n", "train.py": train},
			"python train.py files={path to the files} n=[list of numbers] [manual_data]"},
		"a folder in capitals": {map[string]string{
			"README.md": "# x\n\n```\npython llm.py LLM_HF_FOLDER c4\n```\n\n```\npython opt.py facebook/opt-125m c4\n```\n", "llm.py": train, "opt.py": train},
			"python opt.py facebook/opt-125m c4 [auto]"},
		"settings that are not comments": {map[string]string{
			"README.md": "# x\n\n```bash\npython train.py \\\n    # the folder of settings\n    --config-path conf/ \\\n    # its name\n    --config-name a.yaml\n    # more may follow\n```\n", "train.py": train, "conf/a.yaml": "b: 1\n"},
			"python train.py --config-path conf/ --config-name a.yaml [auto]"},
		"a program of a folder of data prepares": {map[string]string{
			"README.md": "# x\n\n```\npython datasets/rooms.py in_lmdb out_dir\npython main.py\n```\n", "datasets/rooms.py": "import lmdb\n", "main.py": train},
			"python datasets/rooms.py in_lmdb out_dir ; python main.py [auto]"},
		"variables that the document sets": {map[string]string{
			"README.md": "# x\n\n```\nMODEL_FLAGS=\"--size 64 --depth 3\"\n```\n\nThen:\n\n```\npython main.py $MODEL_FLAGS --name \"$MODEL_FLAGS\"\n```\n", "main.py": train},
			"python main.py $MODEL_FLAGS --name \"$MODEL_FLAGS\" [auto]"},
		"a folder of the authors' disks": {map[string]string{
			"README.md": "# x\n\n```\npython main.py --eval\n```\n", "main.py": train + "p.add_argument('--data-path', default='/datasets01/imagenet/061417/')\n"},
			"python main.py --eval [manual_data]"},
		"a service behind the programs": {map[string]string{
			"README.md": "# x\n\n```\npython main.py\n```\n", "main.py": "import lm.models\nprint('accuracy:', a)\n", "lm/models.py": "import openai\n"},
			"python main.py [gated]"},
		"a service that another choice needs": {map[string]string{
			"README.md": "# x\n\n```\npython main.py\n```\n", "main.py": "import lm.models\nprint('accuracy:', a)\n", "lm/models.py": "def api():\n    import openai\n"},
			"python main.py [auto]"},
		"scripts that prose names by a pattern": {map[string]string{
			"README.md": "# x\n\n## Paper Experiments\n\nRun via `sh scripts/{one, two}/{plain, tree}.sh`.\n", "scripts/one/tree.sh": "python run.py\n", "scripts/extra.sh": "python run.py --b\n", "run.py": train},
			"bash scripts/one/tree.sh [auto]"},
		"a script that wants arguments": {map[string]string{
			"README.md": "# x\n", "go.sh": "seed=$1\npython run.py --seed $seed\n", "main.py": train + "if __name__ == '__main__':\n    main()\n", "run.py": train},
			"python main.py [auto]"},
		"a program in each of two domains": {map[string]string{
			"README.md": "# x\n\n```\npython finetune.py --output OUTPUT_FILE_PATH\n```\n", "bio/finetune.py": train, "chem/finetune.py": train},
			"python finetune.py --output run_output [auto]"},
		"a letter that is a value": {map[string]string{
			"README.md": "# x\n\n```\nmpiexec -n N python main.py --features M\n```\n\n```\npython main.py --features M\n```\n", "main.py": train},
			"python main.py --features M [auto]"},
		"a port and a folder": {map[string]string{
			"README.md": "# x\n\n```\ntorchrun --nproc_per_node=1 --master_port=<your_random_port> main.py --output_dir <your_output_dir>\n```\n", "main.py": train},
			"torchrun --nproc_per_node=1 --master_port=29500 main.py --output_dir run_output [auto]"},
		"options that absl insists on": {map[string]string{
			"README.md": "# x\n\nTrain through `main.py`.\n\n```\nbash run.sh\n```\n", "run.sh": "python main.py --mode train\n", "main.py": train + "flags.DEFINE_string('mode', None, 'm')\nflags.mark_flags_as_required(['mode'])\n"},
			"bash run.sh [auto]"},
		"data that Hydra's settings expect": {map[string]string{
			"README.md": "# x\n\n```\npython train.py\n```\n", "conf/base.yaml": "data:\n  csv_path: ./data/processed/metadata.csv\n", "train.py": "import hydra\n" + train + "@hydra.main(config_path='conf', config_name='base')\ndef run(cfg): pass\n"},
			"python train.py [manual_data]"},
		"no documents, but a program for each service": {map[string]string{
			"README.md": "# x\n", "evaluate.py": "import openai\nif __name__ == '__main__':\n    print('accuracy:', a)\n", "evaluate_local.py": "import torch\nif __name__ == '__main__':\n    print('accuracy:', a)\n"},
			"python evaluate_local.py [auto]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := minimalOf(t, tt.files); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestMethod(t *testing.T) {
	for title, want := range map[string]string{
		"ZipNet: training in reverse": "ZipNet", "Rank-One Model Editing (ROME)": "ROME", "SimX": "SimX", "Official code of a paper": "", "Training networks": "", "HNN – physics": "HNN",
	} {
		if got := method(facts(t, map[string]string{"README.md": "# " + title + "\n"})); got != want {
			t.Errorf("%q: %q, want %q", title, got, want)
		}
	}
}

func TestVisionNames(t *testing.T) {
	for _, tt := range []struct {
		text, name string
		want       bool
	}{
		{"pythonevallinearpyarchvitsmallpatchsize16", "ViT-S/16", true}, {"archvitbasepatch16", "ViT-B/16", true}, {"archvitbasepatch16", "ViT-B/32", false},
		{"archvitlargepatch16", "ViT-B/16", false}, {"deittinypatch16", "DeiT-Ti/16", true}, {"anything", "ResNet-50", false},
	} {
		if got := visionName(tt.text, tt.name); got != tt.want {
			t.Errorf("%s in %s: %v", tt.name, tt.text, got)
		}
	}
}
