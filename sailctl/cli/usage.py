"""Help texts of the ``sailctl`` verbs."""

from __future__ import annotations

HELP = """\
usage: sailctl VERB ...

Continuous control in MuJoCo, learned from preferences between trajectories.

verbs:
  train    train a policy, or a sweep of policies
  status   show the states of the jobs of a sweep
  eval     measure the true return of a trained policy, and write a video
  plot     draw the learning curves of runs
  compare  compare algorithms or settings, with confidence intervals and stability
  report   write the comparison as one HTML page with figures
  regress  the gate for CI: test whether a change made learning worse
  collect  collect a data set of preferences

  tasks      list the tasks, their sizes and their speed on this machine
  reference  list the reference policies, or train those of a task
  doctor     check what works on this machine, and say what to install

  sailctl VERB --help explains a verb; sailctl --version prints the version.

examples:
  sailctl train                                       SAIL-RevKL on HalfCheetah, the default
  sailctl train algo=sail env=hopper-v5 seed=3        choose the algorithm, the task, the seed
  sailctl train -m algo=sail,sail_revkl seed=0,1,2    six runs, one per core
  sailctl train --cfg job                             every setting with its meaning, without a run
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
  until=decided        with -m and without seed=: add seeds, --batch 5 at a time, until a sequential test
                       has decided every arm against the --baseline, at most --batches 6 times;
                       --by SETTING says what is compared (default: algo.*), as in sailctl compare
  --fail-fast          in a sweep, start no further job after one has failed
  --fresh              start a new run even if this one exists
  --cfg job            print the whole configuration with comments, and run nothing
  --config-dir FOLDER  also look for options in your own FOLDER/algo/*.yaml, FOLDER/env/*.yaml, ...
  -h, --help           this text

examples:
  sailctl train algo=sail_revkl env=halfcheetah-v5 algo.gamma=0.1 seed=3
  sailctl train -m algo=sail,sail_revkl 'seed=range(0,5)'
  sailctl train -m algo=sail,sail_revkl env=hopper-v5 until=decided
  sailctl train experiment=demo algo=sail
  sailctl train algo=sail_segments rollout=episodes

The same command resumes a stopped run; a finished run is not trained again. After Ctrl-C or SIGTERM a run
finishes its iteration and saves a checkpoint; a second signal stops it at once.

Exit code: 0 done, 1 a run failed, 2 invalid input, 130 interrupted, 143 terminated.
"""

STATUS_HELP = """\
usage: sailctl status [--watch [SECONDS] | --json] [FOLDER]

Show the states of the jobs of a sweep, started or not, and of all other runs in FOLDER (default: runs).
FOLDER/jobs.csv contains the same table, updated whenever a job ends.

  finished     is complete
  running      a process works on it
  waiting      has not started
  interrupted  was stopped by a signal; the same command resumes it
  lost         its process died; the same command resumes it
  failed       stopped with an error, which is shown

options:
  --watch [SECONDS]  repeat the table at this interval (default: 5), until no job is running
  --json             print JSON
  -h, --help         this text

Exit code: 0, or 1 if a job failed or is lost, 2 if there is no run.
"""

COLLECT_HELP = """\
usage: sailctl collect --pairs N --out FILE.parquet [--config-dir FOLDER] [KEY=VALUE ...]

Collect N answers of the teacher about pairs of segments of a fixed policy, and write them to a file for
training (algo.data=FILE), which pandas can read.

  KEY=VALUE      settings as for sailctl train; the relevant ones are
                 env, rollout, oracle   the task, the segments and the teacher
                 policy                 the policy, untrained, unless
                 algo.reference         names a run or a policy folder to load it from
                 seed, threads

options:
  --pairs N            answers to collect; ties count, skipped pairs do not
  --out FILE.parquet   file to create; an existing file is not overwritten
  --config-dir FOLDER  also look for options in your own FOLDER/env/*.yaml, FOLDER/oracle/*.yaml, ...
  -h, --help           this text

examples:
  sailctl collect --pairs 500 --out cheetah.parquet
  sailctl collect --pairs 2000 --out hopper.parquet env=hopper-v5 oracle=mistake seed=7
  sailctl collect --pairs 500 --out good.parquet algo.reference=runs/halfcheetah-v5/sail/1a2b3c4d-s0
  sailctl train algo=dpo_offline algo.data=cheetah.parquet

Exit code: 0 done, 1 collection failed, 2 invalid input, 130 interrupted.
"""

REFERENCE_HELP = """\
usage: sailctl reference
       sailctl reference env=TASK [--out FOLDER] [--config-dir FOLDER] [KEY=VALUE ...]
       sailctl reference env=TASK --from FILE.zip [--obs-stats FILE.npz] [--out FOLDER]

Without a task: list the reference policies that ship with sailctl, and their returns.

With a task: train on the true reward (PPO, unless algo=sac), keep the policy of every evaluation, and choose
three of them: weak, medium and expert reach about 0.15, 0.5 and 1 of the best policy's gain over random
actions. They are written to FOLDER/TASK/, with their provenance and returns in reference.json.

With --from: import a policy that Stable-Baselines3 saved (PPO, A2C or SAC, MlpPolicy) into
FOLDER/TASK/FILE/. Nothing in the file is executed. --obs-stats has mean and var of VecNormalize.

  KEY=VALUE            settings as for sailctl train; the most relevant ones are
                       env_steps, seed, algo (ppo, sac) and their settings
                       evaluation.every   env steps between the candidate policies
                       policy.hidden      widths of the network, for PPO

options:
  --out FOLDER         parent of the task's folder (default: references)
  --config-dir FOLDER  also look for options in your own FOLDER/algo/*.yaml, FOLDER/env/*.yaml, ...
  -h, --help           this text

examples:
  sailctl reference
  sailctl reference env=hopper-v5 env_steps=2_000_000 evaluation.every=50_000
  sailctl train env=hopper-v5 algo.reference=medium algo.reference_interval=0
  sailctl train env=hopper-v5 algo.reference=references/hopper-v5/expert
  sailctl reference env=hopper-v5 --from model.zip --obs-stats stats.npz
  sailctl train experiment=alignment env=hopper-v5 algo.reference=references/hopper-v5/model

Exit code: 0 done, 1 training failed, 2 invalid input, 130 interrupted.
"""

REGRESS_HELP = """\
usage: sailctl regress [BASELINE ...]
       sailctl regress --update REASON [BASELINE ...]
       sailctl regress --update REASON --new NAME KEY=VALUE ... [FOLDER]

Test whether a change made learning worse. Train by the protocol of every baseline, with other seeds, and
compare the final scores; compare the first updates of every algorithm with the stored ones. Print the result,
the false-alarm rate of the gate, and the smallest drop that it detects.

  BASELINE       baseline files, or folders of them (default: results/baselines)

options:
  --update REASON      regenerate the baselines, and record the reason with them
  --new NAME           with --update: create one for a new protocol, KEY=VALUE as for sailctl train
  --seeds N            with --new: runs of the baseline (default: 40)
  --gate-seeds N       with --new: runs of the gate (default: 8)
  --alpha P            with --new: significance level of the test (default: 0.01)
  --jobs N             parallel runs (default: one per core)
  --out FOLDER         keep the runs in FOLDER
  --config-dir FOLDER  also look for options in your own FOLDER/algo/*.yaml, FOLDER/env/*.yaml, ...
  -h, --help           this text

examples:
  sailctl regress
  sailctl regress --update "a smaller learning rate, on purpose"
  sailctl regress --update "first one" --new short algo=sail env=hopper-v5 env_steps=200_000

Exit code: 0 not worse, 1 worse (or different numbers), 2 could not judge (also after an interrupt).
"""

COMPARE = """\
RUNS are run directories, folders of them, evidence saved by --save (.csv), or foreign curves: a .csv with the
columns task, algorithm, seed, env_steps and return. Runs that differ only in their seed form an arm. Arms
may differ only in the compared settings. All arms are compared with one of them, the baseline.
docs/statistics.md defines every number.
"""
