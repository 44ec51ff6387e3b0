"""A Task: what one trial trains. PyTorch only; tuner brings the search, the ranks and the logs."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from trainables import Context, Task


class Digits(Task):
    """Built anew for every trial, on every rank; then one train_epoch and one evaluate an epoch.

    With export() and load(), which trainables.Task describes, the best trial would become a model
    that tuner.load_model returns; as it is, best/ holds its checkpoint.
    """

    logs = ("weights",)  # what it shows in TensorBoard beside its metrics, where there is time

    def __init__(self, config: dict[str, Any], context: Context) -> None:
        super().__init__(config, context)  # config: the settings and this trial's hyperparameters
        images, labels = load_digits(return_X_y=True)
        data = TensorDataset(torch.tensor(images / 16).float(), torch.tensor(labels))
        self.val, train = data[:360], TensorDataset(*data[360:])
        torch.manual_seed(context.seed)  # the same weights on every rank
        self.net = nn.Sequential(
            nn.Linear(64, config["hidden"]), nn.ReLU(), nn.Linear(config["hidden"], 10)
        )
        self.model = context.parallel(self.net)  # on its device, with gradients of all ranks
        options = {"momentum": config["momentum"]} if config["optimizer"] == "SGD" else {}
        self.optimizer = getattr(torch.optim, config["optimizer"])(
            self.net.parameters(), lr=config["learning_rate"], **options
        )
        batch_size = context.local_batch_size(config["batch_size"])
        self.loader = DataLoader(train, batch_size, sampler=context.sampler(train))

    def train_epoch(self) -> dict[str, float]:
        """Train once over this rank's share of the data."""
        total = 0.0
        for images, labels in self.loader:
            logits = self.model(images.to(self.context.device))
            loss = functional.cross_entropy(logits, labels.to(self.context.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        step, weights = self.context.epoch + 1, self.net.state_dict()["0.weight"].cpu()
        self.context.log("weights", lambda writer: writer.add_histogram("first", weights, step))
        return {"train_loss": self.context.mean(total, len(self.loader))}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Score this rank's share of the validation set; context.mean adds up the ranks'."""
        mine = list(self.context.shard(len(self.val[1])))
        images, labels = (part[mine].to(self.context.device) for part in self.val)
        correct = (self.net(images).argmax(1) == labels).sum()
        return {"val_accuracy": self.context.mean(correct, len(mine))}

    def state_dict(self) -> dict[str, Any]:
        """All that training changed, so that a trial can be paused and go on."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
