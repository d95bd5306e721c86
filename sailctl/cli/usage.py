"""What the verbs of ``sailctl`` say about themselves."""

from __future__ import annotations

HELP = """\
usage: sailctl VERB ...

Continuous control in MuJoCo, learned from preferences between trajectories.

verbs:
  train    train a policy, or a sweep of policies
  status   where the jobs of a sweep stand
  eval     measure the true return of a trained policy, and film it
  plot     draw the learning curves of runs
  compare  say which algorithm or setting did better, how surely, and how steadily
  report   the same as one HTML page, with pictures
  regress  the gate for CI: has a change made learning worse?
  collect  make a data set of preferences to learn from

  tasks      list the tasks, their sizes and their speed here
  reference  list the reference policies, or make those of a task
  doctor     what works on this machine, and what to install

  sailctl VERB --help explains a verb; sailctl --version prints the version.

examples:
  sailctl train                                       SAIL-RevKL on HalfCheetah, the default
  sailctl train algo=sail env=hopper-v5 seed=3        choose the algorithm, the task, the seed
  sailctl train -m algo=sail,sail_revkl seed=0,1,2    six runs, one per core
  sailctl train --cfg job                             every setting with its meaning, nothing is run
  sailctl eval runs/halfcheetah-v5/sail/1a2b3c4d-s0   the run's folder, as train printed it
  sailctl compare runs                                is SAIL-RevKL better than SAIL?
  sailctl plot runs/halfcheetah-v5                    learning curves of all runs in a folder
  sailctl collect --pairs 500 --out cheetah.parquet   500 answers, for sailctl train algo.data=cheetah.parquet
"""

TRAIN_HELP = """\
usage: sailctl train [-m] [--cfg job] [--config-dir FOLDER] [KEY=VALUE ...]

Train a policy. Each KEY=VALUE changes one setting; everything else keeps its default.

  GROUP=OPTION   choose a whole file of settings:
{groups}
  KEY=VALUE      change one value: algo.gamma=0.1 algo.queries=50 env_steps=500000 out=my_runs

options:
  -m, --multirun       a run for every combination of comma-separated values, one per core;
                       hydra.launcher.n_jobs=4 changes how many at once,
                       hydra/launcher=basic runs them one after the other,
                       hydra/launcher=slurm as jobs of a cluster
  --fail-fast          of a sweep: once a job has failed, begin no other
  --fresh              a new run even where this one was trained before
  --cfg job            show the whole configuration, a comment on each value, and run nothing
  --config-dir FOLDER  also look for options in your own FOLDER/algo/*.yaml, FOLDER/env/*.yaml, ...
  -h, --help           this text

examples:
  sailctl train algo=sail_revkl env=halfcheetah-v5 algo.gamma=0.1 seed=3
  sailctl train -m algo=sail,sail_revkl 'seed=range(0,5)'
  sailctl train experiment=demo algo=sail
  sailctl train algo=sail_segments rollout=episodes

A run that was stopped goes on where it was, when it is asked for again; one that is finished is not
trained twice. Ctrl-C and SIGTERM let the iteration end and keep it; a second one stops at once.

Exit code: 0 done, 1 a run failed, 2 something asked for is impossible, 130 interrupted, 143 terminated.
"""

STATUS_HELP = """\
usage: sailctl status [--watch [SECONDS] | --json] [FOLDER]

Where the jobs of a sweep stand: those that were asked for, whether they have begun or not, and any other
run in FOLDER (default: runs). The same table is in FOLDER/jobs.csv, as of the last job that ended.

  finished     has its policy
  running      a living process works on it
  waiting      was asked for, and has not begun
  interrupted  was told to stop, and goes on when it is asked for again
  lost         its process is gone without a word; it goes on when it is asked for again
  failed       had to stop, for the reason beside it

options:
  --watch [SECONDS]  print it again every so many seconds (default: 5), until nothing runs
  --json             for programs
  -h, --help         this text

Exit code: 0, or 1 where a job failed or was lost, 2 where there is no run.
"""

COLLECT_HELP = """\
usage: sailctl collect --pairs N --out FILE.parquet [--config-dir FOLDER] [KEY=VALUE ...]

Let a policy that does not learn act, ask the teacher about pairs of segments until it has answered N of them,
and write the answers into a file that algorithms learn from (algo.data=FILE) and pandas reads.

  KEY=VALUE      settings as for sailctl train; those that matter are
                 env, rollout, oracle   the task, the segments and the teacher
                 policy                 the policy that acts, untrained, unless
                 algo.reference         names a run or a policy folder that it comes from
                 seed, threads

options:
  --pairs N            answers to collect; ties count, pairs that the teacher skips do not
  --out FILE.parquet   file to make; one that exists is left alone
  --config-dir FOLDER  also look for options in your own FOLDER/env/*.yaml, FOLDER/oracle/*.yaml, ...
  -h, --help           this text

examples:
  sailctl collect --pairs 500 --out cheetah.parquet
  sailctl collect --pairs 2000 --out hopper.parquet env=hopper-v5 oracle=mistake seed=7
  sailctl collect --pairs 500 --out good.parquet algo.reference=runs/halfcheetah-v5/sail/1a2b3c4d-s0
  sailctl train algo=dpo_offline algo.data=cheetah.parquet

Exit code: 0 done, 1 it had to stop, 2 something asked for is impossible, 130 interrupted.
"""

REFERENCE_HELP = """\
usage: sailctl reference
       sailctl reference env=TASK [--out FOLDER] [--config-dir FOLDER] [KEY=VALUE ...]

Without a task: list the reference policies that ship with sailctl, and what they earn.

With one: train on the true reward (PPO, unless algo=sac), keep the policy of every evaluation, and choose
three of them: weak, medium and expert have gained about 0.15, 0.5 and all of what the best one gains over
random actions. They go into FOLDER/TASK/, with a reference.json of how they were made and what they earn.

  KEY=VALUE            settings as for sailctl train; those that matter most are
                       env_steps, seed, algo (ppo, sac) and their settings
                       evaluation.every   env steps between the policies there are to choose from
                       policy.hidden      widths of the network, for PPO

options:
  --out FOLDER         where the task's folder is made (default: references)
  --config-dir FOLDER  also look for options in your own FOLDER/algo/*.yaml, FOLDER/env/*.yaml, ...
  -h, --help           this text

examples:
  sailctl reference
  sailctl reference env=hopper-v5 env_steps=2_000_000 evaluation.every=50_000
  sailctl train env=hopper-v5 algo.reference=medium algo.reference_interval=0
  sailctl train env=hopper-v5 algo.reference=references/hopper-v5/expert

Exit code: 0 done, 1 training had to stop, 2 something asked for is impossible, 130 interrupted.
"""

REGRESS_HELP = """\
usage: sailctl regress [BASELINE ...]
       sailctl regress --update REASON [BASELINE ...]
       sailctl regress --update REASON --new NAME KEY=VALUE ... [FOLDER]

Has a change made learning worse? Train by the protocol of every baseline, with other seeds, and compare the
final scores; compare the first updates of every algorithm with those that are stored. Print what was found,
how often such a gate raises a false alarm, and which drop it catches.

  BASELINE       files that this verb made, or folders of them (default: results/baselines)

options:
  --update REASON      make the baselines anew; the reason is kept beside them
  --new NAME           with --update: make one for a new protocol, KEY=VALUE as for sailctl train
  --seeds N            with --new: runs of the baseline (default: 40)
  --gate-seeds N       with --new: runs of the gate (default: 8)
  --alpha P            with --new: chance of a false alarm that is allowed (default: 0.01)
  --jobs N             runs at a time (default: one per core)
  --out FOLDER         keep the runs there
  --config-dir FOLDER  also look for options in your own FOLDER/algo/*.yaml, FOLDER/env/*.yaml, ...
  -h, --help           this text

examples:
  sailctl regress
  sailctl regress --update "a smaller learning rate, on purpose"
  sailctl regress --update "first one" --new short algo=sail env=hopper-v5 env_steps=200_000

Exit code: 0 not worse, 1 worse (or other numbers), 2 could not judge (an interruption too).
"""

COMPARE = """\
RUNS are run directories, folders of them, evidence saved by --save (.csv), or foreign curves: a .csv with the
columns task, algorithm, seed, env_steps and return. Runs that differ only in their seed form an arm; arms
may differ in the compared settings and in nothing else. One arm is the baseline that the others are compared
with. docs/statistics.md defines every number.
"""
