package recipe

import (
	"fmt"
	"strings"
	"testing"
)

// smokeOf plans the checkout and shows its quick check: the command, and what
// is changed.
func smokeOf(t *testing.T, files map[string]string) string {
	t.Helper()
	f := facts(t, files)
	ch := Choose(f, Commands(f), nil)
	var b strings.Builder
	for _, r := range ch.Runs {
		if r.Kind != "smoke" {
			continue
		}
		fmt.Fprintf(&b, "%s", r.Command)
		for _, p := range r.Patches {
			if p.Kind == "source" {
				fmt.Fprintf(&b, " | %s:%d %s", p.File, p.Line, p.After)
			} else {
				fmt.Fprintf(&b, " | %s:%d", p.File, p.Line)
			}
		}
		comparable := true
		for _, why := range r.Reasons {
			comparable = comparable && !strings.Contains(why, "not comparable")
		}
		if comparable {
			b.WriteString(" | comparable")
		}
	}
	return b.String()
}

// TestQuickChecks makes the minimal command short in every way that a program
// can be told to be short.
func TestQuickChecks(t *testing.T) {
	readme := func(cmd string) string { return "# x\n\n```bash\n" + cmd + "\n```\n" }
	step := "import torch\ndef main():\n    optimizer.step()\n"
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"argparse": {map[string]string{"README.md": readme("python train.py --lr 1"),
			"train.py": step + "p.add_argument('--max-steps', type=int)\np.add_argument('--max_eval_samples', type=int)\np.add_argument('--epochs', type=int)\n"},
			"python train.py --lr 1 --max-steps 10 --max_eval_samples 10 | train.py:4"},
		"a limit that is given": {map[string]string{"README.md": readme("python train.py --epochs=90"), "train.py": step + "p.add_argument('--epochs', type=int)\n"},
			"python train.py --epochs=1 | train.py:4"},
		"a switch": {map[string]string{"README.md": readme("python train.py"), "train.py": step + "p.add_argument('--fast_dev_run', action='store_true')\n"},
			"python train.py --fast_dev_run | train.py:4"},
		"type=bool is no switch": {map[string]string{"README.md": readme("python train.py"), "train.py": step + "p.add_argument('--debug', type=bool)\n"}, ""},
		"absl": {map[string]string{"README.md": readme("python train.py"), "train.py": step + "flags.DEFINE_integer('num_train_steps', 100, 'x')\n"},
			"python train.py --num_train_steps=10 | train.py:4"},
		"tyro": {map[string]string{"README.md": readme("python train.py"), "train.py": step + "import tyro\n@dataclass\nclass Args:\n    total_timesteps: int = 100\nargs = tyro.cli(Args)\n"},
			"python train.py --total_timesteps 10 | train.py:7"},
		"a data class of its own": {map[string]string{"README.md": readme("python train.py"), "train.py": step + "@dataclass\nclass State:\n    total_timesteps: int = 100\n"}, ""},
		"transformers": {map[string]string{"README.md": readme("python train.py --output_dir x"),
			"train.py": step + "from transformers import HfArgumentParser, TrainingArguments\nparser = HfArgumentParser((TrainingArguments,))\n"},
			"python train.py --output_dir x --max_steps 10 | train.py:4"},
		"Lightning's own options": {map[string]string{"README.md": readme("python train.py"),
			"train.py": "import torch\nfrom pytorch_lightning import Trainer\nparser = Trainer.add_argparse_args(parser)\ntrainer = Trainer.from_argparse_args(args)\ntrainer.fit(m)\n"},
			"python train.py --max_epochs=1 --limit_train_batches=10 --limit_val_batches=10 --limit_test_batches=10 | train.py:2"},
		"LightningCLI": {map[string]string{"README.md": readme("python main.py fit --config c.yaml"), "c.yaml": "a: 1\n",
			"main.py": "import torch\nfrom lightning.pytorch.cli import LightningCLI\ncli = LightningCLI(M)\ntrainer.fit(m)\n"},
			"python main.py fit --config c.yaml --trainer.max_epochs=1 --trainer.limit_train_batches=10 --trainer.limit_val_batches=10 --trainer.limit_test_batches=10 | main.py:0"},
		"Hydra over Lightning": {map[string]string{"README.md": readme("python src/train.py trainer=gpu"), "configs/train.yaml": "defaults:\n  - trainer: gpu\nseed: 1\n", "configs/trainer/gpu.yaml": "max_epochs: 9\n",
			"src/train.py": "import hydra, torch\n@hydra.main(config_path='../configs', config_name='train.yaml')\ndef main(cfg):\n    trainer.fit(m)\n"},
			"python src/train.py trainer=gpu ++trainer.max_epochs=1 ++trainer.limit_train_batches=10 ++trainer.limit_val_batches=10 ++trainer.limit_test_batches=10 | configs/train.yaml:1"},
		"a key of Hydra's settings": {map[string]string{"README.md": readme("python train.py --config-name small optim.max_steps=500"), "conf/small.yaml": "optim:\n  lr: 1\n  max_steps: 900\n",
			"train.py": "import hydra, torch\n@hydra.main(config_path='conf', config_name='large')\ndef main(cfg):\n    optimizer.step()\n"},
			"python train.py --config-name small optim.max_steps=10 | conf/small.yaml:3"},
		"a script that hands options on": {map[string]string{"README.md": readme("LR=1 bash run_train.sh"), "run_train.sh": "python train.py --lr $LR \"$@\"\n", "train.py": step + "p.add_argument('--max_steps', type=int)\n"},
			"LR=1 bash run_train.sh --max_steps 10 | train.py:4"},
		"a script that does not": {map[string]string{"README.md": readme("bash run_train.sh"), "run_train.sh": "python train.py\n", "train.py": step + "p.add_argument('--max_steps', type=int)\n"}, ""},
		"rows of the data": {map[string]string{"README.md": readme("python evaluate.py"), "evaluate.py": "import torch, data\nprint('accuracy:', x)\n", "data.py": "import pandas as pd\ndef load(p):\n    df = pd.read_csv(p)\n    return df\n"},
			"python evaluate.py | data.py:3     df = pd.read_csv(p, nrows=100)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := smokeOf(t, tt.files); got != tt.want {
				t.Errorf("\n got %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestUnpublished takes the upload to the authors' account away, on the command
// line and in a script.
func TestUnpublished(t *testing.T) {
	f := facts(t, map[string]string{"README.md": "# x\n\n```\npython train.py --push_to_hub --lr 1\nbash go.sh\n```\n", "train.py": "import torch\nloss.backward()\n",
		"go.sh": "python train.py \\\n    --push_to_hub \\\n    --lr 2 \\\n    --push_to_hub=True\n"})
	var got []string
	for _, c := range Commands(f) {
		got = append(got, strings.Join(c.Argv, " "))
		for _, p := range c.Patches {
			got = append(got, fmt.Sprintf("%s %d %q -> %q", p.Kind, p.Line, p.Before, p.After))
		}
	}
	want := `python train.py --lr 1
flag 4 "python train.py --push_to_hub --lr 1" -> "python train.py --lr 1"
bash go.sh
source 2 "    --push_to_hub \\" -> "\\"
source 4 "    --push_to_hub=True" -> ""`
	if strings.Join(got, "\n") != want {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}
