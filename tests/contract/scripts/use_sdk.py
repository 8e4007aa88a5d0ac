# mypy: ignore-errors
"""Uses a server through the public classes of the published SDK, as its README does.

The environment names the server, as the SDK reads it, and ``WEB``, where the files of the current
folder are served.
"""

import csv
import os
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from acts import Acts, failure_of, report
from clarifai.client.app import App
from clarifai.client.compute_cluster import ComputeCluster
from clarifai.client.dataset import Dataset
from clarifai.client.input import Inputs
from clarifai.client.model import Model
from clarifai.client.nodepool import Nodepool
from clarifai.client.search import Search
from clarifai.client.user import User
from clarifai.client.workflow import Workflow
from clarifai.datasets.upload.base import ClarifaiDataLoader
from clarifai.datasets.upload.features import (
    VisualClassificationFeatures,
    VisualDetectionFeatures,
)
from clarifai.runners.models.model_class import ModelClass
from clarifai.runners.models.model_runner import ModelRunner
from clarifai_grpc.grpc.api import resources_pb2
from google.protobuf.struct_pb2 import Struct

sys.stdout = sys.stderr  # the SDK prints
BASE, PAT, USER, WEB = (
    os.environ[name] for name in ("CLARIFAI_API_BASE", "CLARIFAI_PAT", "CLARIFAI_USER_ID", "WEB")
)

act = Acts()
kept = act.kept
AUTH = {"base_url": BASE, "pat": PAT}
APP = "sdk-app"
MAIN = {"user_id": "clarifai", "app_id": "main", **AUTH}


def user() -> User:
    return User(user_id=USER, **AUTH)


def app() -> App:
    return App(user_id=USER, app_id=APP, **AUTH)


def inputs() -> Inputs:
    return Inputs(user_id=USER, app_id=APP, **AUTH)


def dataset(name: str = "data") -> Dataset:
    return Dataset(user_id=USER, app_id=APP, dataset_id=name, **AUTH)


def search(**options: object) -> Search:
    return Search(user_id=USER, app_id=APP, **AUTH, **options)


def hits(found: object) -> list[str]:
    return [hit.input.id for page in found for hit in page.hits]


class Pictures(ClarifaiDataLoader):
    """Classified pictures, as a user's own loader gives them."""

    task = "visual_classification"

    def load_data(self) -> None:
        pass

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> VisualClassificationFeatures:
        path = f"labelled/{('red', 'blue', 'red')[index]}.png"
        return VisualClassificationFeatures(path, ["red", "blue"][index % 2], id=f"loaded-{index}")


class Boxes(ClarifaiDataLoader):
    """Pictures with two boxes each."""

    task = "visual_detection"

    def load_data(self) -> None:
        pass

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> VisualDetectionFeatures:
        boxes = [[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]]
        return VisualDetectionFeatures("red.png", ["one", "two"], boxes, id=f"boxed-{index}")


@act
def list_apps() -> None:
    assert [found.id for found in user().list_apps()]


@act
def create_app() -> None:
    made = user().create_app(app_id=APP, base_workflow="Universal")
    assert (made.id, made.user_id) == (APP, USER)


@act
def patch_app() -> None:
    user().patch_app(app_id=APP, action="overwrite", description="patched", default_language="en")
    assert user().app(APP).description == "patched"


@act
def user_info() -> None:
    assert user().get_user_info().user.id == USER


@act
def create_dataset() -> None:
    assert app().create_dataset(dataset_id="data").id == "data"
    assert [found.id for found in app().list_datasets()] == ["data"]


@act
def patch_dataset() -> None:
    app().patch_dataset(dataset_id="data", action="merge", description="patched")


@act
def upload_from_url() -> None:
    inputs().upload_from_url(input_id="by-url", image_url=f"{WEB}/red.png", labels=["red"])
    assert _status("by-url") == 30000


@act
def upload_from_file() -> None:
    inputs().upload_from_file(input_id="by-file", image_file="blue.png")
    inputs().upload_from_file(input_id="video", video_file="clip.mp4")
    assert (_status("by-file"), _status("video")) == (30000, 30000)


@act
def upload_from_bytes() -> None:
    inputs().upload_from_bytes(input_id="by-bytes", image_bytes=Path("red.png").read_bytes())
    assert _status("by-bytes") == 30000


@act
def upload_text() -> None:
    inputs().upload_text(input_id="text", raw_text="This is a test")
    assert _status("text") == 30000


@act
def upload_with_everything() -> None:
    metadata = {"Breed": "Saint Bernard"}
    proto = inputs().get_input_from_file(
        input_id="dog",
        image_file="red.png",
        dataset_id="data",
        labels=["dog"],
        geo_info=[-30.0, 40.0],
        metadata=_struct(metadata),
    )
    inputs().upload_inputs([proto])
    _settled(["dog"])


@act
def list_inputs() -> None:
    found = {item.id for item in inputs().list_inputs()}
    assert {"by-url", "by-file", "by-bytes", "text", "video", "dog"} <= found
    images = {item.id for item in inputs().list_inputs(input_type="image")}
    assert "text" not in images
    assert "dog" in images
    assert len(list(inputs().list_inputs(page_no=1, per_page=3))) == 3
    assert [item.id for item in inputs().list_inputs(dataset_id="data")] == ["dog"]


@act
def list_concepts() -> None:
    assert {"dog", "red"} <= {found.id for found in app().list_concepts()}


@act
def list_annotations() -> None:
    items = [item for item in inputs().list_inputs() if item.id == "dog"]
    assert len(list(inputs().list_annotations(batch_input=items))) == 1


@act
def upload_annotations() -> None:
    box = inputs().get_bbox_proto(input_id="dog", label="tail", bbox=[0.1, 0.1, 0.5, 0.5])
    inputs().upload_annotations(batch_annot=[box])
    items = [item for item in inputs().list_inputs() if item.id == "dog"]
    assert len(list(inputs().list_annotations(batch_input=items))) == 2


@act
def patch_inputs() -> None:
    proto = resources_pb2.Input(id="by-file")
    proto.data.metadata.update({"patched": True})
    inputs().patch_inputs([proto], action="merge")
    assert inputs().get_input("by-file").data.metadata["patched"] is True


@act
def patch_concepts() -> None:
    inputs().patch_concepts(concept_ids=["dog"], labels=["hound"], values=[])


@act
def download_inputs() -> None:
    items = [item for item in inputs().list_inputs() if item.id in ("by-url", "by-bytes")]
    found = inputs().download_inputs(items)
    assert found == [Path("red.png").read_bytes()] * 2


@act
def upload_dataset() -> None:
    dataset().upload_dataset(dataloader=Pictures(), get_upload_status=False)
    found = {item.id for item in inputs().list_inputs(dataset_id="data")}
    assert {f"data-loaded-{number}" for number in range(3)} <= found


@act
def upload_boxes() -> None:
    dataset().upload_dataset(dataloader=Boxes(), get_upload_status=True)
    items = [item for item in inputs().list_inputs(dataset_id="data") if "boxed" in item.id]
    assert len(items) == 2
    # One annotation of every input's own, and its boxes.
    assert len(list(inputs().list_annotations(batch_input=items))) == 6


@act
def upload_from_csv() -> None:
    with open("texts.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["inputid", "input", "concepts", "metadata", "geopoints"])
        rows.writerow(["csv-1", "a kind word", "good", "{'k': 1}", ""])
        rows.writerow(["csv-2", "a harsh word", "bad", "{'k': 2}", ""])
    texts = app().create_dataset(dataset_id="texts")
    texts.upload_from_csv(csv_path="texts.csv", input_type="text", csv_type="raw", labels=True)
    found = {item.id for item in inputs().list_inputs(dataset_id="texts")}
    assert found == {"csv-1", "csv-2"}


@act
def upload_from_folder() -> None:
    folder = app().create_dataset(dataset_id="folder")
    folder.upload_from_folder(folder_path="labelled", input_type="image", labels=True)
    found = list(inputs().list_inputs(dataset_id="folder"))
    assert len(found) == 2
    assert found[0].data.concepts[0].name == "labelled"


@act
def dataset_versions() -> None:
    version = dataset().create_version()
    assert version.version.id in {found.version.id for found in dataset().list_versions()}
    kept["dataset version"] = version.version.id


@act
def export_dataset() -> None:
    version = Dataset(
        user_id=USER,
        app_id=APP,
        dataset_id="data",
        dataset_version_id=kept["dataset version"],
        **AUTH,
    )
    version.export(save_path="output.zip")
    with zipfile.ZipFile("output.zip") as archive:
        assert archive.namelist()


@act
def merge_dataset() -> None:
    merged = app().create_dataset(dataset_id="merged")
    merged.merge_dataset(merge_dataset_id="folder")


@act
def filters() -> None:
    def found(*conditions: dict) -> list[str]:
        return hits(search(top_k=100, metric="euclidean").query(filters=list(conditions)))

    assert "dog" in found({"concepts": [{"name": "dog", "value": 1}]})
    deer, dog = ({"name": name, "value": 1} for name in ("deer", "dog"))
    assert "dog" in found({"concepts": [deer, dog]})
    assert found({"concepts": [dog]}, {"concepts": [deer]}) == []
    assert found({"metadata": {"Breed": "Saint Bernard"}}) == ["dog"]
    place = {"longitude": -29.0, "latitude": 40.0, "geo_limit": 100}
    assert found({"geo_point": place}) == ["dog"]
    assert "text" not in found({"input_types": ["image"]})
    assert "dog" in found({"input_types": ["image"]}, {"input_status_code": 30000})
    assert "dog" in found({"input_dataset_ids": ["data"]})
    assert found({"input_dataset_ids": ["random"]}) == []


@act
def image_search() -> None:
    best = hits(search(top_k=1, metric="euclidean").query(ranks=[{"image_url": f"{WEB}/blue.png"}]))
    assert best == ["blue"]  # the newest of the equal ones
    both = search(top_k=1).query(
        ranks=[{"image_url": f"{WEB}/red.png"}],
        filters=[{"concepts": [{"name": "dog", "value": 1}]}],
    )
    assert hits(both) == ["dog"]


@act
def text_search() -> None:
    assert hits(search(top_k=1).query(ranks=[{"text_raw": "a kind word"}])) == ["csv-1"]


@act
def search_in_pages() -> None:
    paged = search(pagination=True)
    pages = list(paged.query(filters=[{"input_types": ["image"]}], per_page=3, page_no=1))
    assert [len(page.hits) for page in pages] == [3]
    everything = hits(paged.query(filters=[{"input_types": ["image"]}]))
    assert len(everything) == len(set(everything)) > 3


@act
def saved_search_by_algorithm() -> None:
    found = search(top_k=5, algorithm="brute_force").query(
        filters=[{"concepts": [{"name": "dog", "value": 1}]}]
    )
    assert hits(found) == ["dog"]


@act
def model_info() -> None:
    model = Model("https://clarifai.com/clarifai/main/models/general-image-recognition", **AUTH)
    assert "general-image-recognition" in str(model)
    assert model.model_type_id == "visual-classifier"
    assert list(model.list_versions())


@act
def predict_by_bytes() -> None:
    model = Model(model_id="general-image-recognition", **MAIN)
    found = model.predict_by_bytes(Path("red.png").read_bytes(), input_type="image")
    assert found.outputs[0].data.concepts


@act
def predict_by_file_with_settings() -> None:
    model = Model(model_id="general-image-recognition", **MAIN)
    found = model.predict_by_filepath("red.png", output_config={"max_concepts": 2})
    assert len(found.outputs[0].data.concepts) == 2
    found = model.predict_by_filepath("red.png", output_config={"min_value": 0.98})
    assert all(concept.value >= 0.98 for concept in found.outputs[0].data.concepts)


@act
def predict_by_old_id() -> None:
    model = Model(model_id="aaa03c23b3724a16a56b629203edc62c", **MAIN)
    assert model.predict_by_url(f"{WEB}/red.png").outputs[0].data.concepts


@act
def predict_selected_concepts() -> None:
    model = Model(model_id="general-image-recognition", **MAIN)
    first = model.predict_by_filepath("red.png").outputs[0].data.concepts
    chosen = [resources_pb2.Concept(name=concept.name) for concept in first[:2]]
    found = model.predict_by_filepath("red.png", output_config={"select_concepts": chosen})
    assert {c.name for c in found.outputs[0].data.concepts} == {c.name for c in chosen}


@act
def failed_prediction() -> None:
    model = Model(model_id="general-image-recognition", **MAIN)
    failure = failure_of(lambda: model.predict_by_url(f"{WEB}/missing.png"))
    assert "INPUT" in failure, failure


@act
def predict_frames() -> None:
    model = Model(model_id="general-image-recognition", **MAIN)
    proto = inputs().get_input_from_file("", video_file="clip.mp4")
    found = model.predict([proto], output_config={"sample_ms": 2000})
    times = [frame.frame_info.time for frame in found.outputs[0].data.frames]
    assert times == list(range(1000, 1000 + 2000 * len(times), 2000)), times
    assert times


@act
def predict_text() -> None:
    model = Model(model_id="text-sentiment", **MAIN)
    assert model.predict_by_bytes(b"I love my dog", input_type="text").outputs[0].data.concepts


@act
def generate_text() -> None:
    model = Model(model_id="text-stream", **MAIN)
    stream = model.generate_by_bytes(b"one two three", input_type="text")
    words = [response.outputs[0].data.text.raw for response in stream]
    assert "".join(words) == "one two three", words


@act
def community_models() -> None:
    found = App(**MAIN).list_models(filter_by={"query": "general"}, only_in_app=False)
    assert "general-image-recognition" in {model.id for model in found}
    in_app = App(**MAIN).list_models(filter_by={"model_type_id": "visual-classifier"})
    assert list(in_app)


@act
def create_and_patch_model() -> None:
    model = app().create_model(model_id="trained", model_type_id="embedding-classifier")
    assert model.id == "trained"
    app().patch_model(model_id="trained", action="merge", description="patched")
    assert app().model(model_id="trained").description == "patched"


@act
def training_templates() -> None:
    model = app().create_model(model_id="templated", model_type_id="visual-classifier")
    template = model.list_training_templates()[0]
    params = model.get_params(template=template, save_to="templated.yaml")
    assert params["train_params"]["template"] == template
    model.train("templated.yaml")


@act
def train_model() -> None:
    model = app().model(model_id="trained")
    params = model.get_params(save_to="params.yaml")
    assert params
    model.update_params(dataset_id="data", concepts=["red", "blue"])
    version = model.train()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = model.training_status(version_id=version)
        if status.code == 21100:
            break
        assert status.code in (21101, 21103), status
        time.sleep(0.05)
    kept["model version"] = version
    assert len(list(model.list_versions())) == 1


@act
def predict_with_the_trained_model() -> None:
    found = app().model(model_id="trained").predict_by_filepath("red.png", input_type="image")
    assert found.outputs[0].data.concepts[0].id == "red"


@act
def evaluate_model() -> None:
    model = app().model(model_id="trained")
    # As the README has it, for a version of the user's choice.
    model.model_info.model_version.id = kept["model version"]
    evaluated = model.evaluate(dataset=dataset(), eval_id="eval")
    assert evaluated


@act
def read_evaluation() -> None:
    model = app().model(model_id="trained")
    found = model.get_eval_by_id("eval", label_counts=True)
    assert (
        found.eval_metrics[0].id == "eval" if hasattr(found, "eval_metrics") else found.id == "eval"
    ), found
    assert [item.id for item in model.list_evaluations()] == ["eval"]


@act
def public_workflow() -> None:
    workflow = Workflow("https://clarifai.com/clarifai/main/workflows/General", **AUTH)
    found = workflow.predict_by_url(f"{WEB}/red.png", input_type="image")
    assert found.results[0].outputs[0].data.concepts
    assert list(workflow.list_versions())


@act
def workflow_with_settings() -> None:
    workflow = Workflow(workflow_id="General", output_config={"max_concepts": 2}, **MAIN)
    found = workflow.predict_by_filepath("red.png", input_type="image")
    assert len(found.results[0].outputs[0].data.concepts) == 2


@act
def create_workflow() -> None:
    Path("workflow.yml").write_text(
        """
workflow:
  id: two-nodes
  nodes:
    - id: embed
      model:
        model_id: general-image-embedding
        user_id: clarifai
        app_id: main
    - id: tag
      model:
        model_id: general-image-recognition
        user_id: clarifai
        app_id: main
"""
    )
    made = app().create_workflow(config_filepath="workflow.yml")
    assert made.id == "two-nodes"
    assert "two-nodes" in {found.id for found in app().list_workflows()}


@act
def predict_by_own_workflow() -> None:
    workflow = app().workflow(workflow_id="two-nodes")
    found = workflow.predict_by_filepath("red.png", input_type="image")
    assert len(found.results[0].outputs) == 2


@act
def export_workflow() -> None:
    app().workflow(workflow_id="two-nodes").export("exported.yml")
    text = Path("exported.yml").read_text()
    assert "general-image-recognition" in text


@act
def create_exported_workflow() -> None:
    app().delete_workflow("two-nodes")
    assert app().create_workflow(config_filepath="exported.yml").id == "two-nodes"


@act
def patch_workflow() -> None:
    app().patch_workflow(workflow_id="two-nodes", action="merge", description="patched")


@act
def export_public_workflow() -> None:
    Workflow("https://clarifai.com/clarifai/main/workflows/General", **AUTH).export("general.yml")
    assert "general-image-recognition" in Path("general.yml").read_text()


@act
def community_workflows() -> None:
    found = App(**MAIN).list_workflows(filter_by={"query": "general"}, only_in_app=False)
    assert "General" in {workflow.id for workflow in found}


@act
def concept_relations() -> None:
    app().create_concepts(concept_ids=["animal", "cat"], concepts=["animal", "cat"])
    app().create_concept_relations("cat", ["animal"], ["hyponym"])
    relations = list(app().search_concept_relations(concept_id="cat"))
    assert relations
    app().delete_concept_relations("cat", [relations[0].id])


@act
def secrets() -> None:
    user().create_secrets([{"id": "token", "value": "s3cret", "description": "of a test"}])
    listed = list(user().list_secrets())
    assert "token" in {secret.get("secret_id", secret.get("id")) for secret in listed}, listed
    user().delete_secrets(["token"])


@act
def compute_cluster() -> None:
    made = user().create_compute_cluster(
        compute_cluster_id="cluster", config_filepath="cluster.yaml"
    )
    assert made.id == "cluster"
    assert "cluster" in {found.id for found in user().list_compute_clusters()}


@act
def nodepool() -> None:
    cluster = ComputeCluster(user_id=USER, compute_cluster_id="cluster", **AUTH)
    made = cluster.create_nodepool(nodepool_id="pool", config_filepath="nodepool.yaml")
    assert made.id == "pool"
    assert cluster.nodepool(nodepool_id="pool").id == "pool"
    assert "pool" in {found.id for found in cluster.list_nodepools()}


@act
def deployment() -> None:
    pool = Nodepool(user_id=USER, nodepool_id="pool", **AUTH)
    made = pool.create_deployment(deployment_id="deployment", config_filepath="deployment.yaml")
    assert made.id == "deployment"
    assert pool.deployment(deployment_id="deployment").id == "deployment"
    assert "deployment" in {found.id for found in pool.list_deployments()}
    pool.delete_deployments(["deployment"])


@act
def delete_compute() -> None:
    ComputeCluster(user_id=USER, compute_cluster_id="cluster", **AUTH).delete_nodepools(["pool"])
    user().delete_compute_clusters(["cluster"])


@act
def cloud() -> None:
    (provider,) = user().list_cloud_providers()
    (region,) = user().list_cloud_regions(provider.id)
    assert user().list_instance_types(provider.id, region.id)


class Shouting(ModelClass):
    """A model that the published runner serves, in this process."""

    def load_model(self) -> None:
        pass

    @ModelClass.method
    def shout(self, text: str) -> str:
        return text.upper()

    @ModelClass.method
    def count(self, n: int) -> Iterator[int]:
        yield from range(n)


@act
def serve_with_the_published_runner() -> None:
    local = {
        "cloud_provider": {"id": "local"},
        "region": "local",
        "managed_by": "user",
        "cluster_type": "local-dev",
    }
    cluster = user().create_compute_cluster(
        compute_cluster_id="own", compute_cluster_config={"compute_cluster": {"id": "own", **local}}
    )
    limits = {"cpu_limit": "1", "cpu_memory": "1Gi", "num_accelerators": 0}
    pool = cluster.create_nodepool(
        nodepool_id="own",
        nodepool_config={
            "nodepool": {
                "id": "own",
                "compute_cluster": {"id": "own", "user_id": USER},
                "instance_types": [{"id": "local", "compute_info": limits}],
                "node_capacity_type": {"capacity_types": [1]},
                "max_instances": 1,
                "min_instances": 0,
            }
        },
    )
    model = app().create_model("shouting", model_type_id="any-to-any")
    signatures = [method.signature for method in Shouting._get_method_infos().values()]
    made = model.create_version(
        pretrained_model_config={"local_dev": True}, method_signatures=signatures
    )
    served = resources_pb2.Model(id="shouting", user_id=USER, app_id=APP)
    served.model_version.id = made.model_version.id
    runner = pool.create_runner(
        runner_config={"runner": {"id": "r", "worker": {"model": served}, "num_replicas": 1}}
    )
    serving = ModelRunner(
        Shouting(),
        runner_id=runner.id,
        nodepool_id="own",
        compute_cluster_id="own",
        user_id=USER,
        num_parallel_polls=2,
        health_check_port=None,
        **AUTH,
    )
    threading.Thread(target=serving.start, daemon=True).start()


@act
def call_what_the_runner_serves() -> None:
    model = Model(f"https://clarifai.com/{USER}/{APP}/models/shouting", **AUTH)
    assert model.shout(text="hello") == "HELLO"
    assert list(model.count(n=3)) == [0, 1, 2]


@act
def delete_things() -> None:
    app().delete_model("trained")
    app().delete_workflow("two-nodes")
    app().delete_dataset("merged")
    inputs().delete_inputs(list(inputs().list_inputs(dataset_id="texts")))


@act
def delete_app() -> None:
    user().delete_app(APP)
    assert APP not in {found.id for found in user().list_apps()}


def _struct(values: dict) -> object:
    struct = Struct()
    struct.update(values)
    return struct


def _status(input_id: str) -> int:
    _settled([input_id])
    return inputs().get_input(input_id).status.code


def _settled(ids: list[str]) -> None:
    deadline = time.monotonic() + 30
    for input_id in ids:
        while inputs().get_input(input_id).status.code in (30001, 30003):
            assert time.monotonic() < deadline, f"{input_id} is still pending"
            time.sleep(0.02)


report(act.run())
